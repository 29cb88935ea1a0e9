from small_blocks import small_blocks

__all__ = ["small_blocks"]
