"""What the name of a measurement says about its direction: an accuracy is better when higher, an error when lower."""

from __future__ import annotations

import re
import unicodedata
from typing import Final


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_HIGHER: Final = _set(
    "accuracy accuracies acc auc auroc rocauc aucroc auprc prauc aucpr f1 f2 fbeta fscore psnr ssim msssim r2 "
    "rsquared bleu sacrebleu rouge rougel rougelsum meteor cider spice chrf iou miou giou meaniou meanap "
    "jaccard dice kappa qwk mcc recall sensitivity specificity ndcg mrr pck snr sisnr sisdr stoi pesq reward "
    "spearman pearson bertscore vmaf"
)
"""Words that say so wherever they stand in a name."""

_HIGHER_ALONE: Final = _set("map ap em precision top topk hits hit")
"""Words that say so unless something else is spoken of: a `precision_bits` or a `feature_map_norm` is none."""

_BESIDE: Final = _set(
    "val valid validation test train training selection eval dev mean avg average macro micro weighted "
    "balanced top m at k n score metric best final overall per class box mask bbox seg coco pascal voc s l "
    "small medium large"
)
"""Words beside one of those that change nothing."""

_LOWER: Final = _set(
    "error errors err loss losses nll ce bce mse rmse mae mape smape wer cer ter fid kid lpips perplexity ppl "
    "bpc cost drop gap regret deficit decrease degradation miss missed misses neg negative negated minus "
    "inverse inverted complement distance dist difference diff delta deviation variance std wrong false "
    "failure failures bias time latency seconds bits bytes params nonzeros macs flops size norm brier ece eer entropy "
    "divergence kl disagreement inaccuracy misclassification"
)
"""Words that turn it around, or speak of something else."""

_RATES: Final = _set("error errors err accuracy accuracies acc inaccuracy misclassification disagreement")
_NOT_A_RATE: Final = _LOWER - _RATES - frozenset(("wrong", "miss", "missed", "misses"))
_OF_NUMBERS: Final = _set("output layer")
"""Words beside which an error is one of numbers, not of examples."""

_WORD: Final = re.compile(r"[a-z]+\d*|\d+")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_COMPLEMENT: Final = re.compile(r"\s*1\s*[-−–_]\s*\D")


def is_higher_better(name: str) -> bool:
    """Whether the name is of a well-known measurement that is better when higher.

    >>> list(map(is_higher_better, ("val_accuracy", "mAP@50", "top-5 acc", "error_f1", "acc_loss", "1-acc")))
    [True, True, True, False, False, False]
    """
    if _COMPLEMENT.match(name):
        return False
    return any(_says_higher(words) for words in _readings(name))


def is_lower_better(name: str) -> bool:
    """Whether the name says that less is better.

    >>> is_lower_better("top1_error"), is_lower_better("accuracy"), is_lower_better("thing")
    (True, False, False)
    """
    return bool(_COMPLEMENT.match(name)) or any(_LOWER.intersection(words) for words in _readings(name))


def is_rate(name: str) -> bool:
    """Whether the name is of a share of examples, such as an error rate, from 0 to 1.

    >>> is_rate("test_error"), is_rate("top1"), is_rate("error_mse"), is_rate("output_error")
    (True, True, False, False)
    """
    words = {word for reading in _readings(name) for word in reading}
    top = {"top", "topk"} & words and words <= _BESIDE | {"top", "topk"} | {word for word in words if word.isdigit()}
    return bool(_RATES & words or top) and not (_NOT_A_RATE | _OF_NUMBERS) & words


def _says_higher(words: frozenset[str]) -> bool:
    if _LOWER & words:
        return False
    if _HIGHER & words:
        return True
    others = {word for word in words if word not in _HIGHER_ALONE and not word.isdigit()}
    return bool(_HIGHER_ALONE & words) and others <= _BESIDE


def _readings(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words of a name, as it is and with a word at each hump of camelCase; `f1` is one, `top1` is `top` as well."""
    plain = unicodedata.normalize("NFKC", name)
    return _words(plain), _words(_CAMEL.sub(" ", plain))


def _words(text: str) -> frozenset[str]:
    found = _WORD.findall(text.lower())
    return frozenset(_bare(word) for word in found)


def _bare(word: str) -> str:
    known = word in _HIGHER or word.isdigit()
    return word if known else word.rstrip("0123456789")
