"""A small training that looks at its own heartbeat: phases.py API, under a supervisor.

API is fit, calls (``train``, then ``eval``), callback (an ``eval`` out of a callback of ``train``) or custom.
At its end it prints, as one line of JSON, where it looked and what the heartbeat said there, in order, and
how many silences each phase has had.
"""

import atexit
import json
import sys
from pathlib import Path

from resilient.wire.heartbeat import Phase
from resilient.worker.session.session import current

SEEN = []


def look(where):
    SEEN.append((where, current().shared.heartbeat.phase.name))


look("before the import")

import mindspore as ms  # noqa: E402

look("after the import")
sys.path.insert(0, str(Path(__file__).parent.parent))

from mindspore import nn  # noqa: E402
from mindspore.train import Accuracy, Callback, Model  # noqa: E402
from small import SmallNetwork, dataset  # noqa: E402

API = sys.argv[1]
ms.set_context(mode=ms.PYNATIVE_MODE)


class Looking(SmallNetwork):
    """Looks while it computes."""

    def construct(self, x):
        look("training" if self.training else "evaluation")
        return super().construct(x)


class Hooks(Callback):
    """Looks in between; evaluates, where it is to."""

    def on_train_step_end(self, run_context):
        look("callback")
        if API == "callback" and run_context.original_args().cur_step_num == 3:
            model.eval(dataset())
            look("callback")

    def on_train_epoch_end(self, run_context):
        look("end of epoch")


def custom():
    import resilient

    optimizer = nn.Adam(network.trainable_params(), 1e-2)
    step = ms.value_and_grad(lambda x, y: loss(network(x), y), None, optimizer.parameters)
    network.set_train()
    with resilient.training(network, optimizer) as run:
        for x, y in run.steps(dataset(), 2):
            optimizer(step(x, y)[1])


network = Looking()
loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
model = Model(network, loss, nn.Adam(network.trainable_params(), 1e-2), metrics={"accuracy": Accuracy()})
if API == "custom":
    custom()
elif API == "fit":
    model.fit(1, dataset(), dataset(), callbacks=[Hooks()])
else:
    model.train(1, dataset(), callbacks=[Hooks()])
    if API == "calls":
        look("between")
        model.eval(dataset())
look("after")


@atexit.register
def report():
    look("at exit")
    page = current().shared.heartbeat
    print(json.dumps({"seen": SEEN, "samples": {phase.name: page.samples(phase) for phase in Phase}}))
