"""A training whose evaluations give a known metric: best.py KIND. The n-th gives the n-th of SCORES.

KIND is fit, calls (train and eval in turn), other (eval of another network), changed (the network is changed
before it is evaluated), custom (a loop of its own that reports), or process (a CheckpointMonitor that saves
in another process).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lean  # noqa: F401
import mindspore as ms
from mindspore import nn
from mindspore.train import Metric, Model
from small import SmallNetwork, dataset

KIND = sys.argv[1]
SCORES = [0.3, 0.9, 0.5, 0.8, 0.1]


class Known(Metric):
    """A metric that is known beforehand."""

    def __init__(self):
        super().__init__()
        self.given = iter(SCORES)

    def clear(self):
        pass

    def update(self, *inputs):
        pass

    def eval(self):
        return next(self.given)


network = SmallNetwork()
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
optimizer = nn.Adam(network.trainable_params(), 1e-2)
if KIND == "custom":
    import resilient

    step = ms.value_and_grad(lambda x, y: loss(network(x), y), None, optimizer.parameters)
    with resilient.training(network, optimizer, keep_max=1, keep_best=2, keep_best_by="known:max") as run:
        for x, y in run.steps(dataset(), len(SCORES)):
            value, gradients = step(x, y)
            optimizer(gradients)
            run.report(loss=value)
            if (run.step + 1) % 8 == 0:
                run.report(known=ms.Tensor(SCORES[run.step // 8]))
else:
    model = Model(network, loss, optimizer, metrics={"known": Known()})
    if KIND in ("fit", "process"):
        callbacks = []
        if KIND == "process":
            from resilient import CheckpointMonitor

            monitor = CheckpointMonitor(save_checkpoint_steps=8, keep_checkpoint_max=1, async_save="process")
            callbacks = [monitor]
        model.fit(len(SCORES), dataset(), dataset(), callbacks=callbacks)
    else:
        judge = Model(SmallNetwork(), loss, metrics={"known": Known()}) if KIND == "other" else model
        for number in range(len(SCORES)):
            model.train(1, dataset())
            if KIND == "changed":
                network.first.bias.set_data(ms.ops.full_like(network.first.bias, number))
            print(judge.eval(dataset()))
