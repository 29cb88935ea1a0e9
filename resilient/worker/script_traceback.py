"""The traceback of an exception that leaves the script, as if the script had been run without us."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

_OUR_FOLDER = str(Path(__file__).parent.parent)


def hide_our_frames() -> None:
    """The interpreter is about to report an exception: as if the script had been run without us."""
    hook = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        seen: set[int] = set()
        chain: BaseException | None = error
        while chain is not None and id(chain) not in seen:
            seen.add(id(chain))
            chain.__traceback__ = _without_our_frames(chain)
            chain = chain.__cause__ or chain.__context__
        hook(kind, error, error.__traceback__)

    sys.excepthook = report


def _without_our_frames(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    ours = [_is_ours(frame) for frame in frames]
    if isinstance(error, SyntaxError) and all(ours):
        # The script could not be compiled: the error itself says where.
        return None
    # What else fails inside of us is shown: hiding it would blame the script.
    kept = [frame for frame, hidden in zip(frames, ours, strict=True) if not hidden]
    if not kept or (ours and ours[-1]):
        kept = frames[ours.index(False) :] if False in ours else frames
    result: TracebackType | None = None
    for frame in reversed(kept):
        frame.tb_next = result
        result = frame
    return result


def _is_ours(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_code.co_filename
    return name.startswith((_OUR_FOLDER, "<frozen runpy>")) or name.endswith(f"{os.sep}runpy.py")
