import torch
from torch.testing import assert_close

from vit.tasks.answers import Answers


def answers(net, digits, trainer, included=()):
    digits.setup("test")
    made = trainer(callbacks=[], limit_predict_batches=3).predict(Answers(net, 4, included), digits.test_dataloader())
    return made, list(digits.test_dataloader())[:3]


def test_top_probabilities_logits_and_embeddings(tiny_net, digits, trainer):
    made, batches = answers(tiny_net, digits, trainer, ("logits", "embeddings"))
    for answer, batch in zip(made, batches, strict=True):
        with torch.no_grad():
            logits, features = tiny_net.eval()(batch.images), tiny_net.features(batch.images)
        top = logits.softmax(dim=-1).topk(4)
        assert torch.equal(answer.index, batch.index) and torch.equal(answer.classes, top.indices)
        assert_close(answer.probabilities, top.values)
        assert_close((answer.logits, answer.embeddings), (logits, features))


def test_nothing_is_kept_but_what_was_asked_for(tiny_net, digits, trainer):
    """Pooling the class token gives a view of all tokens, which would keep them in memory."""
    for included in ((), ("logits",), ("embeddings",)):
        made, _ = answers(tiny_net, digits, trainer, included)
        for answer in made:
            kept = {"logits": answer.logits, "embeddings": answer.embeddings}
            assert {name for name, numbers in kept.items() if numbers is not None} == set(included)
            for numbers in filter(lambda part: part is not None, answer):
                assert numbers.untyped_storage().nbytes() == numbers.nbytes
