"""What makes two configurations the same study."""

import hashlib
import json
from typing import Any

import yaml

from vit.experiments.recipe import parse, recipe_hash


def without(value: Any, names: set[str]) -> Any:
    if isinstance(value, list):
        return [without(item, names) for item in value]
    return {n: without(v, names) for n, v in value.items() if n not in names} if isinstance(value, dict) else value


def test_an_option_younger_than_a_study_changes_its_recipe_only_where_it_is_set():
    plain = parse(["model/vit_pico"], {}, (), ())
    config = without(yaml.safe_load(plain.saved_config()), {"merge_classes", "act_layer"})
    for name in ("root", "num_workers"):
        config["data"].pop(name)
    before = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    merge = '{"even": ["0", "2", "4", "6", "8"], "odd": ["1", "3", "5", "7", "9"]}'
    tanh = '{"class_path": "torch.nn.GELU", "init_args": {"approximate": "tanh"}}'
    set_ = (f"--data.merge_classes={merge}", f"--model.net.backbone.block.mlp.act_layer={tanh}")
    hashes = [recipe_hash(parse(["model/vit_pico"], {}, (), options)) for options in (set_, set_[:1])]
    assert recipe_hash(plain) == before and len({before, *hashes}) == 3
