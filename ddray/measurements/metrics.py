"""One record per metric: what it is about, its unit, which way is better, what it means, and who makes it.

Evaluations write their numbers with property and unit (``trainables/evaluate``); a row that disagrees with its record
fails a test, and so does one without a record. Numbers of several points have their records beside their derivation
(``derived/``), in the same form. docs/metrics.md shows all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ddray.plan.kinds import STAGE_KINDS
from trainables.configs import KINDS

Property = Literal["performance", "fairness", "robustness", "privacy", "informativeness", "cost"]
Better = Literal["higher", "lower", ""]
"""For whoever uses the distilled set; empty where neither is."""

NORM = "norm"
"""A unit that is the attack's norm: ``l2`` or ``linf``, as in the column ``norm``."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that rows of ``measurements.parquet`` hold."""

    id: str
    property: Property
    unit: str
    """As on the rows: ``fraction``, ``nat``, ``s``, …; ``NORM`` where the attack's norm is."""
    better: Better
    made_by: str
    """The stage whose rows hold it: a kind, or ``stage`` for those that all kinds have. Of a derived metric, the
    derivation."""
    meaning: str
    column: str = ""
    """Title of its column in the report, for a number of one model that no table has a place of its own for: among
    the numbers of fairness, or in the table of further numbers."""
    mirrored: bool = True
    """Whether MLflow gets it: what one compares runs by. No derived metric, as it vanishes with what it is compared
    with, and MLflow takes no number back."""

    def row(self, value: float | None, n: int, **columns: Any) -> dict[str, Any]:
        """A row of ``measurements.parquet``, of one model unless ``columns`` hold another ``agg``."""
        unit = columns.get("norm") if self.unit == NORM else self.unit
        head = {"property": self.property, "metric": self.id, "value": value, "unit": unit, "n": n, "agg": "single"}
        return head | columns


def records(
    about: Property,
    made_by: str,
    *entries: tuple[str, str, Better, str] | tuple[str, str, Better, str, str],
    mirrored: Collection[str] | None = None,
) -> tuple[Metric, ...]:
    """Metrics of one property and maker, from (id, unit, better, meaning) or these and the title of a column;
    ``mirrored`` names those MLflow gets."""
    return tuple(
        Metric(id_, about, unit, better, made_by, meaning, "".join(column), mirrored is None or id_ in mirrored)
        for id_, unit, better, meaning, *column in entries
    )


def _costs() -> Iterator[Metric]:
    """Seconds and peak memory of every kind of stage."""
    shown = ("distill_s", "distill_peak_mib", "ensemble_s", "train_s", "train_peak_mib")
    for kind in KINDS:
        which = {"attack": ", by `attack`", "experts": ", by `repeat`"}.get(kind, "")
        for name, unit, what in (("s", "s", "seconds"), ("peak_mib", "MiB", "peak memory")):
            id_ = f"{kind}_{name}"
            yield Metric(
                id_, "cost", unit, "lower", "stage", f"{what} of the stage `{kind}`{which}", mirrored=id_ in shown
            )


MEASURED: tuple[Metric, ...] = (
    *records(
        "performance",
        "accuracy",
        ("test_acc", "fraction", "higher", "share of test images classified correctly; Wilson's interval"),
        ("test_acc_class", "fraction", "higher", "the same of class `class_id`"),
        ("test_loss", "nat", "lower", "mean cross-entropy of test images; Student's interval"),
        ("test_loss_class", "nat", "lower", "the same of class `class_id`"),
        ("train_acc", "fraction", "", "`test_acc` on the images it was trained with", "accuracy on its own images"),
        ("train_loss", "nat", "", "`test_loss` on the images it was trained with"),
        (
            "optimism",
            "fraction",
            "",
            "best less last accuracy of the recorded curve: what choosing the epoch on test images would have added",
            "optimism",
        ),
        ("trained_lr", "1", "", "learning rate that the training began with"),
        (
            "teacher_acc",
            "fraction",
            "",
            "`test_acc` of the teacher that labelled the images; never chosen by it",
            "accuracy of the teacher",
        ),
        (
            "teacher_agreement",
            "fraction",
            "",
            "share of the training images whose largest label of the teacher's is their class",
            "teacher says their class",
        ),
        ("teacher_entropy", "nat", "", "mean entropy of the teacher's labels, at their temperature"),
    ),
    *records(
        "performance",
        "distill",
        (
            "distill_loss",
            "ratio",
            "lower",
            "MTT: its loss at the end, in units of the expert's own way; 1 or more (`not_converged`): the last network "
            "came no nearer to its expert than it had begun",
        ),
        (
            "distill_rate_clamped",
            "iterations",
            "lower",
            "MTT: iterations at which the learned rate had to be kept above 0",
        ),
        (
            "label_agreement",
            "fraction",
            "",
            "of a set with soft labels: share of its images whose largest label is that of their class",
        ),
        ("label_entropy", "nat", "", "mean entropy of soft labels as probabilities, at their temperature"),
    ),
    *records(
        "privacy",
        "accuracy",
        (
            "dp_epsilon",
            "1",
            "lower",
            "of a set or a training with noise: epsilon of differential privacy as its mechanism states it, of one "
            "image added or removed, by Rényi accounting; stated, not measured; settings were chosen without privacy",
        ),
        ("dp_delta", "1", "lower", "delta that it is stated for"),
        ("dp_noise", "clip", "", "standard deviation of the noise on a sum, in units of `dp_clip`"),
        ("dp_clip", "1", "", "largest norm of what one image adds to a sum"),
        ("dp_rate", "fraction", "", "probability with which an image is in a sum"),
        ("dp_rounds", "releases", "", "sums that were released"),
        mirrored=("dp_epsilon",),
    ),
    *records(
        "fairness",
        "accuracy",
        (
            "fair_var_acc",
            "fraction^2",
            "lower",
            "variance over classes (ddof 0) of a_c: Definition 3 of Chen et al. 2023",
        ),
        ("fair_var_loss", "nat^2", "lower", "the same of l_c"),
        (
            "fair_var_acc_corr",
            "fraction^2",
            "lower",
            "`fair_var_acc` less what the sampling of test images adds; unbiased, below 0 now and then",
        ),
        ("fair_var_loss_corr", "nat^2", "lower", "the same of `fair_var_loss`"),
        (
            "fair_var_loss_rescaled",
            "nat^2",
            "lower",
            "`fair_var_loss` after temperature scaling, the temperature of each half of the test images fitted on the "
            "other",
        ),
        ("fair_var_loss_rescaled_corr", "nat^2", "lower", "the same less what the sampling of test images adds"),
        ("temperature", "1", "", "that temperature"),
        ("fair_std_acc", "fraction", "lower", "standard deviation of a_c"),
        ("fair_cv_acc", "ratio", "lower", "standard deviation of a_c over their mean"),
        ("fair_worst_acc", "fraction", "higher", "smallest a_c, which noise lowers"),
        ("fair_worst10pct_acc", "fraction", "higher", "mean of the lowest tenth of a_c"),
        (
            "fair_worst_acc_split",
            "fraction",
            "higher",
            "accuracy of the worst class, the class chosen on one half of the test images and measured on the other",
        ),
        ("fair_gap_acc", "fraction", "lower", "largest less smallest a_c"),
        ("fair_gini_acc", "ratio", "lower", "Gini index of a_c"),
        ("fair_jain", "ratio", "higher", "Jain's index of a_c: (sum a)^2 / (K sum a^2)"),
    ),
    *records(
        "fairness",
        "accuracy",
        (
            "group_worst_acc",
            "fraction",
            "higher",
            "of data with groups: accuracy of the worst group, which noise lowers",
            "worst group",
        ),
        ("group_gap_acc", "fraction", "lower", "largest less smallest accuracy of a group"),
        (
            "group_worst_tpr",
            "fraction",
            "higher",
            "smallest TPR_gk, the share of images of class k and group g that are classified as k",
        ),
        (
            "group_eod_mean",
            "fraction",
            "lower",
            "mean over classes of the largest less the smallest TPR_gk: EOD_mean of FairDD, without false positives",
            "EOD mean",
        ),
        (
            "group_eod_max",
            "fraction",
            "lower",
            "the same of the class where it is largest: EOD_max of FairDD",
            "EOD max",
        ),
        (
            "group_equalised_odds",
            "fraction",
            "lower",
            "equalised odds difference as fairlearn takes it: the largest over classes of that gap and of the gap of "
            "false positive rates",
        ),
        (
            "group_eod_mean_null",
            "fraction",
            "",
            "`group_eod_mean` on average where hits of a class fall on its groups by chance: its noise floor",
            "EOD mean by chance",
        ),
        ("group_eod_mean_null_high", "fraction", "", "below which it is in 95 % of cases by chance"),
        ("group_eod_max_null", "fraction", "", "the same of `group_eod_max`", "EOD max by chance"),
        ("group_eod_max_null_high", "fraction", "", "below which it is in 95 % of cases by chance"),
        mirrored=("group_worst_acc", "group_eod_mean", "group_eod_mean_null"),
    ),
    *records(
        "robustness",
        "robustness",
        ("adv_acc", "fraction", "higher", "share of the images still classified correctly at `epsilon`"),
        ("adv_acc_norm", "fraction", "higher", "`adv_acc` over the clean accuracy"),
        ("adv_auc", "fraction", "higher", "area below `adv_acc` up to the largest epsilon, over that epsilon"),
        ("adv_auc_norm", "fraction", "higher", "the same of `adv_acc_norm`"),
        (
            "adv_dist_median",
            NORM,
            "higher",
            "median of the smallest perturbations found, over the images classified correctly",
        ),
        ("adv_dist_q10", NORM, "higher", "their 10 % quantile"),
        ("adv_dist_mean", NORM, "higher", "their mean"),
        ("adv_acc_class", "fraction", "higher", "`adv_acc` of class `class_id`, at a few epsilons"),
        ("adv_acc_worst_class", "fraction", "higher", "`adv_acc` of the worst class, at a few epsilons"),
        ("adv_fair_var_acc", "fraction^2", "lower", "variance over classes of `adv_acc_class`"),
        ("adv_fair_var_acc_corr", "fraction^2", "lower", "the same less what sampling adds"),
        (
            "adv_gap_strong",
            "fraction",
            "",
            "by how much the strongest attack of the same norm is below DeepFool at the same epsilon",
        ),
        (
            "adv_pgd_weaker_than_fgsm",
            "fraction",
            "",
            "by how much PGD is above FGSM; above 0 is a fault of the protocol",
        ),
        (
            "zero_gradient_share",
            "fraction",
            "",
            "images whose gradient of the cross-entropy vanishes: gradient attacks cannot see there",
        ),
        ("rr_beard", "ratio", "", "BEARD's robustness ratio, for comparison; it is no ranking"),
        mirrored=("adv_acc", "adv_auc", "adv_dist_median", "adv_gap_strong", "zero_gradient_share"),
    ),
    *records(
        "privacy",
        "privacy",
        (
            "mia_auc",
            "fraction",
            "lower",
            "probability that a member scores above a non-member, ties counted half; [intervals](#intervals) of one "
            "target about images, of three and more about targets and images",
        ),
        ("mia_auc_class_mean", "fraction", "lower", "mean of the classes' own AUCs"),
        (
            "mia_auc_null_low",
            "fraction",
            "",
            "between it and `mia_auc_null_high` lie 95 % of AUCs when nothing leaks; of attacks that learn members "
            "from shadows (`lira_online`, `shokri`) and several targets, at least 95 %",
        ),
        ("mia_auc_null_high", "fraction", "", "the upper end of that band"),
        (
            "mia_auc_strongest",
            "fraction",
            "lower",
            "the largest `mia_auc` of the audit's panel (`panel` in `param_json`), `attack` whose it is; its interval "
            "holds for all attacks of the panel at once",
        ),
        (
            "mia_auc_strongest_null_low",
            "fraction",
            "",
            "between it and `mia_auc_strongest_null_high` lie 95 % of the largest AUCs of the panel when nothing leaks",
        ),
        ("mia_auc_strongest_null_high", "fraction", "", "the upper end of that band"),
        (
            "mia_k",
            "images",
            "lower",
            "2 n (AUC - 1/2): as many fully exposed members per class would give this AUC; of what leaks a lower "
            "bound, as a stronger attack would find more",
        ),
        (
            "mia_tpr_at_fpr",
            "fraction",
            "lower",
            "share of members found at the largest threshold with at most `fpr` false alarms",
        ),
        ("mia_tpr_at_fpr0", "fraction", "lower", "the same with no false alarm"),
        ("mia_pauc", "fraction", "lower", "standardised area below the curve up to 1 % false alarms"),
        ("mia_adv", "fraction", "lower", "TPR - FPR at a threshold chosen on shadows"),
        ("mia_bacc", "fraction", "lower", "the balanced accuracy (1 + `mia_adv`) / 2"),
        ("mia_adv_max", "fraction", "lower", "largest TPR - FPR, chosen on the target itself and so too good"),
        (
            "mia_rho",
            "fraction",
            "",
            "share of the members that the distillation started from; AUC = rho AUC_init + (1 - rho) AUC_other",
        ),
        ("mia_auc_ceiling", "fraction", "", "of `random`: the most that any attack can reach, 1/2 + rho/2"),
        ("mia_auc_efficiency", "ratio", "lower", "of `random`: the share of that ceiling that was found"),
        ("mia_tpr_at_fpr_ceiling", "fraction", "", "of `random`, the same of TPR: rho + (1 - rho) FPR"),
        ("mia_tpr_at_fpr_efficiency", "ratio", "lower", "of `random`: the share of that ceiling that was found"),
        ("mia_rmia_a", "1", "", "RMIA's constant a, chosen on shadows"),
        ("mia_target_test_acc", "fraction", "higher", "test accuracy of the attacked models"),
        ("mia_guess_acc", "fraction", "lower", "one-run audit: share of its guesses that were right"),
        (
            "mia_eps_lb",
            "nat",
            "lower",
            "one-run audit: no smaller epsilon (with the stated delta) is compatible with so many right guesses, at "
            "95 %; of several runs the report shows the smallest",
        ),
        mirrored=("mia_auc", "mia_auc_strongest", "mia_k", "mia_tpr_at_fpr", "mia_target_test_acc", "mia_eps_lb"),
    ),
    *records(
        "informativeness",
        "embedding",
        (
            "embed_outlier_rate",
            "fraction",
            "lower",
            "share of distilled images more than half of whose nearest real images are of other classes",
        ),
        ("embed_outlier_rate_real", "fraction", "", "the same of real images"),
        ("embed_coverage", "fraction", "higher", "share of real images with a distilled image of their class nearby"),
        ("embed_coverage_expected", "fraction", "", "the same with as many further real images instead"),
        (
            "embed_centroid_distance",
            "ratio",
            "lower",
            "between the centres of distilled and real images of a class, over their spread",
        ),
        ("embed_centroid_distance_expected", "ratio", "", "the same of as many real images"),
        (
            "embed_mmd",
            "1",
            "lower",
            "squared maximum mean discrepancy of a class's distilled and real images, unbiased",
        ),
        ("embed_mmd_null95", "1", "", "its 95 % quantile without a difference"),
    ),
    *records(
        "informativeness",
        "tsne",
        ("tsne_trustworthiness", "ratio", "higher", "of the two-dimensional map that several sets share; `n` points"),
        ("tsne_kl_divergence", "nat", "lower", "of the same map"),
    ),
    *_costs(),
    *records("cost", "distill", ("distill_bytes", "bytes", "lower", "size of the distilled set as stored")),
    *records(
        "cost",
        "accuracy",
        ("optimiser_steps", "steps", "lower", "of the training"),
        (
            "label_bytes",
            "bytes",
            "lower",
            "of the teacher's labels, four for each image and class; of an online teacher's parameters",
        ),
        ("num_parameters", "parameters", "", "of the network"),
    ),
    *records(
        "cost",
        "privacy",
        (
            "privacy_distillations",
            "stages",
            "lower",
            "distillations that an audit needed beside the point's own; points that share them each say so",
        ),
        ("privacy_trainings", "stages", "lower", "the same of trainings"),
        ("privacy_beside_s", "s", "lower", "seconds of all stages that an audit needed beside the point's own"),
        mirrored=(),
    ),
)
"""Every metric of a stage."""

BY_ID = {metric.id: metric for metric in MEASURED}

EVALUATIONS = {kind: BY_ID[record.first_metric] for kind, record in STAGE_KINDS.items() if record.first_metric}
"""Kind of an evaluation -> the metric that stands on the row of one without a result."""
