"""Recipes, and what of a row counts in training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from dataset.generate import rows
from finetune.data import IGNORED, RowError, TokenizationError, collate, encode_row
from finetune.model import load, order_numbers
from finetune.recipe import Lora, NewModel, Recipe, RecipeError
from finetune.record import record_of
from finetune.tokenizer import train_tokenizer
from finetune.train import begun
from finetune.trainer import prepare, share_all_decided, training_arguments
from serving.tasks.registry import TASKS
from tests.unit.finetune.tiny import recipe

RECIPES = Path(__file__).parents[3] / "finetune" / "recipes"
RATE = TASKS["rate"]
ROWS = list(rows(RATE, "train", 64, 9))
TEXTS = [row["prompt"] + row["completion"] for row in ROWS]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_loads(path: Path) -> None:
    loaded = Recipe.load(path)
    assert loaded.decision_weight == 1 or loaded.lora


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: [", "bad.yaml"),
        ("steps: 1", "learning_rate"),
        ("{train: [x], out: x, steps: 0, batch: 1, learning_rate: 1}", "steps"),
        ("{train: [x], out: x, steps: 1, batch: 1, learning_rate: 1}", "exactly one"),
        (
            "{train: [x], out: x, steps: 1, batch: 1, learning_rate: 1, lora: {rank: 1, alpha: 1}}",
            "needs model",
        ),
        ("{train: [x], out: x, steps: 1, batch: 1, learning_rate: 1, speed: 2}", "speed"),
    ],
)
def test_a_wrong_recipe_names_file_and_field(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.load(path)
    assert "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_are_changed_on_the_command_line() -> None:
    path = RECIPES / "demo-rate.yaml"
    changes = ["steps=100", "lora.rank=8", "learning_rate=1e-4", "checkpointing=true", "model=x=y"]
    before, after = Recipe.load(path), Recipe.load(path, changes)
    changed = {"steps": 100, "learning_rate": 1e-4, "checkpointing": True, "model": "x=y"}
    assert before.lora and after.lora == before.lora.model_copy(update={"rank": 8})
    assert after == before.model_copy(update={**changed, "lora": after.lora})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("stpes=3", "stpes"),
        ("lora.rnak=3", "lora.rnak"),
        ("steps=many", "steps"),
        ("steps", "sets no field"),
        ("steps.more=1", "sets no field"),
        ("=3", "demo-rate.yaml"),
        ("lora=[", "cannot be read"),
        ("device_batch=0", "device_batch"),
        ("new_model.hidden=8", "new_model.vocabulary"),
    ],
)
def test_a_wrong_change_is_one_line_that_names_it(change: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.load(RECIPES / "demo-rate.yaml", [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [3, 5])
def test_a_batch_that_makes_no_whole_passes_is_refused(rows: int) -> None:
    with pytest.raises(RecipeError, match=f"no multiple of {rows} rows"):
        training_arguments(recipe(batch=4, device_batch=rows))


@pytest.mark.parametrize("tracker", ["tensorboard", "nothing"])
def test_a_tracker_that_is_not_installed_is_one_line(tracker: str, tmp_path: Path) -> None:
    rows_file = tmp_path / "rows.jsonl"
    rows_file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:4]))
    shape = NewModel(vocabulary=400, hidden=32, layers=1, heads=2)
    with pytest.raises(RecipeError, match=f"report_to: .*{tracker}"):
        prepare(recipe(train=[rows_file], new_model=shape, report_to=tracker))


def test_embeddings_tell_the_order_of_numbers() -> None:
    tokenizer = train_tokenizer(TEXTS, 1024)
    embeddings = torch.zeros(1024, 256)
    order_numbers(embeddings, tokenizer, 0.02)
    numbers = sorted(
        (int(text), number)
        for token, number in tokenizer.get_vocab().items()
        if (text := tokenizer.convert_tokens_to_string([token]).strip()).isdecimal()
    )
    least = embeddings[numbers[0][1]]
    distances = [float((embeddings[number] - least).norm()) for _, number in numbers]
    assert distances == sorted(distances) and distances[-1] > 0.1
    assert embeddings.count_nonzero(dim=1).tolist().count(256) == len(numbers) > 50
    words = tokenizer.encode("스쿼트")
    assert not embeddings[words].any()


def test_loss_weights_fall_on_completion_and_decisions() -> None:
    tokenizer = train_tokenizer(TEXTS, 512)
    for row in ROWS[:8]:
        encoded = encode_row(row, 0, tokenizer, recipe())
        decided = [i for i, d in zip(encoded["input_ids"], encoded["decided"], strict=True) if d]
        answer = json.loads(row["completion"])
        rates = [str(value) for value in answer.values() if isinstance(value, int)]
        assert tokenizer.decode(decided) == "".join(rates)
        weights = encoded["weights"]
        trained = [i for i, w in zip(encoded["input_ids"], weights, strict=True) if w]
        assert tokenizer.decode(trained) == row["completion"] + tokenizer.eos_token
        assert set(weights) == {0.0, 1.0, 20.0}
        assert weights.count(20.0) == len(decided)


def test_rows_of_another_prompt_are_refused(tmp_path: Path) -> None:
    """They were written before it changed; an adapter of theirs would be exported as new."""
    old = {**ROWS[0], "prompt": ROWS[0]["prompt"].replace("답변", "답")}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[1]) + "\n" + json.dumps(old))
    shape = NewModel(vocabulary=400, hidden=32, layers=1, heads=2)
    with pytest.raises(RowError, match="another prompt than serving/tasks: make dataset"):
        prepare(recipe(train=[file], new_model=shape))


def test_the_tail_is_left_off_all_but_a_share_of_rows() -> None:
    tokenizer = train_tokenizer(TEXTS, 512)
    short = recipe(tail_share=0.25)
    examples = [encode_row(row, n, tokenizer, short) for n, row in enumerate(ROWS)]
    whole = [example["input_ids"][-1] == tokenizer.eos_token_id for example in examples]
    assert sum(whole) == len(ROWS) // 4
    for example, row in zip(examples, ROWS, strict=True):
        text = str(tokenizer.decode(example["input_ids"]))
        whole_text = row["prompt"] + row["completion"] + tokenizer.eos_token
        assert whole_text.startswith(text)
        assert sum(example["decided"]) >= 4


def test_a_tokenizer_that_joins_head_and_decision_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {chr(i): i for i in range(0x110) if chr(i).isprintable()}
    letters |= {c: 10_000 + i for i, c in enumerate(sorted(set("".join(TEXTS)) - set(letters)))}
    inner = Tokenizer(models.WordLevel({**letters, ":55": 1, ":": 2}, unk_token=":"))
    inner.pre_tokenizer = pre_tokenizers.Split(":55", "isolated")
    joining = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=":")  # type: ignore[no-untyped-call]
    with pytest.raises(TokenizationError, match="spans an edge"):
        encode_row(ROWS[0], 0, joining, recipe())


def test_collate_pads_and_masks() -> None:
    batch = collate(
        [
            {"input_ids": [5, 6, 7], "weights": [0, 1, 20], "decided": [0, 0, 1]},
            {"input_ids": [8], "weights": [1], "decided": [0]},
        ],
        pad=0,
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert batch["weights"].tolist() == [[0, 1, 20], [1, 0, 0]]
    assert batch["decided"].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_a_row_counts_only_if_every_decision_is_the_first_choice() -> None:
    """Shorter rows come padded with -100 from the trainer; that is no decision."""
    labels = np.array([[5, 6, 7, 8], [5, 6, 7, -100], [5, 6, 7, -100]])
    decided = np.array([[0, 1, 0, 1], [0, 1, 0, -100], [0, 1, 0, -100]])
    chosen = np.array([[6, 0, 8, 0], [6, 0, 0, 0], [9, 0, 0, 0]])
    prediction = EvalPrediction(predictions=chosen, label_ids=(labels, decided))  # type: ignore[arg-type]
    assert share_all_decided(prediction) == {"all_decided_right": pytest.approx(2 / 3)}


def test_a_missing_base_is_one_line() -> None:
    wrong = recipe(model="finetune/runs/nowhere", lora=Lora(rank=4, alpha=8))
    with pytest.raises(RecipeError, match="finetune/runs/nowhere is no base model") as caught:
        load(wrong, None)
    assert "\n" not in str(caught.value)


def test_a_training_goes_on_from_its_last_whole_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.touch()
    shape = NewModel(vocabulary=600, hidden=32, layers=1, heads=2)
    first = recipe(train=[file], out=tmp_path, new_model=shape)
    assert begun(record_of(first), tmp_path) is None
    for step, state in ((8, "{}"), (12, "{}"), (16, '{"cut'), (20, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert begun(record_of(first), tmp_path) == str(tmp_path / "checkpoint-12")
    assert begun(record_of(first), tmp_path) == str(tmp_path / "checkpoint-12")
    file.write_text("another row")
    assert begun(record_of(first), tmp_path) is None
    assert not [*tmp_path.glob("checkpoint-*")]


@pytest.mark.parametrize("field", [{"steps": 2}, {"seed": 1}, {"learning_rate": 1e-4}])
def test_another_recipe_begins_anew(tmp_path: Path, field: dict[str, float]) -> None:
    shape = NewModel(vocabulary=600, hidden=32, layers=1, heads=2)
    begun(record_of(recipe(train=[], out=tmp_path, new_model=shape)), tmp_path)
    (tmp_path / "checkpoint-8").mkdir(parents=True)
    assert (
        begun(record_of(recipe(train=[], out=tmp_path, new_model=shape, **field)), tmp_path) is None
    )
    assert not [*tmp_path.glob("checkpoint-*")]
