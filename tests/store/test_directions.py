"""What names say about directions, and that measurements which are no objectives follow them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.basics import is_higher_better, is_lower_better, is_rate
from rank_search.point import Objective
from rank_search.store import Store
from tests.store.store_tools import a_record, complete, finish, numbers

HIGHER = """
accuracy acc Accuracy val_accuracy valAcc top1 top-1 top5 top_5_acc auc AUC roc_auc ROCAUC f1 F1 f1_score
macro_f1 test_f1 psnr PSNR_Y ssim r2 R2 R² bleu BLEU-4 rouge rougeL rouge_l map mAP mAP50 mAP@0.5 val_map iou
mIoU miou dice precision avg_precision recall recall@10 kappa jaccard ms_ssim balanced_accuracy
"""
NOT_HIGHER = """
error error_f1 f1_error err loss nll 1-acc 1-accuracy one_minus_accuracy acc_loss dice_loss accuracy_drop
inaccuracy feature_map_norm heatmap map_size mixed_precision_cost precision_bits macc accumulated_cost
accelerometer recalled macs params bits latency rmse topology psnr_loss neg_auc perplexity fid wer eer
iou_distance score thing
"""


@pytest.mark.parametrize("name", HIGHER.split())
def test_a_well_known_name_is_better_when_higher(name: str) -> None:
    assert is_higher_better(name)
    assert not is_lower_better(name)


@pytest.mark.parametrize("name", NOT_HIGHER.split())
def test_other_names_are_not(name: str) -> None:
    assert not is_higher_better(name)


@given(st.text())
def test_no_name_says_both(name: str) -> None:
    assert not (is_higher_better(name) and is_lower_better(name))
    assert is_higher_better(f"{name} loss") is False


@pytest.mark.parametrize(("name", "rate"), [("error", True), ("top1", True), ("val_acc", True), ("mse_error", False)])
def test_rates(name: str, rate: bool) -> None:
    assert is_rate(name) is rate


def test_a_measurement_that_is_no_objective_follows_its_name(store: Store) -> None:
    study = store.join(a_record("minimize", "maximize"))
    for k in range(4):
        finish(store, study, complete(a=1.0 + k, b=float(k), accuracy=k / 10, thing=k / 10, test_b=float(k)))
    assert study.objective("b") == study.objective("b")
    assert study.objective("test_b") == Objective("test_b", "maximize")
    assert numbers(store.front(study, sort="accuracy")) == [3, 2, 1, 0]
    assert numbers(store.front(study, sort="thing")) == [0, 1, 2, 3]
    assert numbers(store.front(study, objectives=["accuracy"])) == [3]
    assert numbers(store.front(study, objectives=["test_b"])) == [3]
