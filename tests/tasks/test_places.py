"""What others get to see of a configuration or a message that names places of this machine."""

import pytest

from vit.tasks.places import told_without_places, without_places


def test_of_every_place_its_last_part_stays():
    config = {
        "data": {"root": "me/photos", "seed": 3},
        "list": ["/a/b", {"teacher": "runs/large/"}],
        "monitor": "val/acc",
    }
    assert without_places(config) == {
        "data": {"root": "photos", "seed": 3},
        "list": ["b", {"teacher": "large"}],
        "monitor": "val/acc",
    }
    assert without_places({"init_from": "timm:timm/vit_tiny", "root": None, "save_dir": "."}) == {
        "init_from": "timm:timm/vit_tiny",
        "root": None,
        "save_dir": ".",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ValueError: /home/me/photos/cat/1.png: expected a picture", "ValueError: 1.png: expected a picture"),
        ("cannot write '/a/b c.ckpt' (~/x/y.json, /d/e/): full", "cannot write 'b c.ckpt' (y.json, ): full"),
        (
            "16 / 4 heads, val/acc, https://a.org/b/c and vit/run.py",
            "16 / 4 heads, val/acc, https://a.org/b/c and vit/run.py",
        ),
    ],
)
def test_of_every_absolute_path_in_a_message_the_last_part_stays(text: str, told: str):
    assert told_without_places(text) == told
