"""Numbers that need several points of a sweep: made from finished evaluations whenever the tables are.

    notes.py          what is remembered of each point while the tables are written
    relative.py       against the full data and against random images; DD-Ranking's scores
    fairness.py       which classes lose more than others, against the full-data model
    seeds.py          what several trainings of one set have in common, from their logits
    architectures.py  one set, several networks; whether the ranking of methods is kept
    robustness.py     against the full-data model, image by image
    privacy.py        which of two points leaks more, on the same members and others
    frontier.py       against real images at the same accuracy

    rows.py           all of them

They stand in the table as rows of the points they belong to, and vanish with what they are compared with. Only points
of one *block* are compared: one data set and origin, network and training recipe. This file imports nothing.
"""

METRICS = frozenset(
    {
        "acc_over_full",
        "ior",
        "recovery",
        "dd_hlr",
        "dd_ior",
        "dd_lrs",
        "dd_ars",
        "fair_retention_c",
        "fair_retention_min",
        "fair_retention_std",
        "fair_amplification",
        "fair_hardness_rho",
        "fair_hardness_slope",
        "fair_hardness_rho_of_mean",
        "fair_hardness_p",
        "fair_hardness_p_adjusted",
        "fair_confusion_excess",
        "fair_var_acc_of_mean",
        "fair_var_loss_of_mean",
        "fair_persistent",
        "fair_persistent_loss",
        "xarch_retention",
        "xarch_mean",
        "xarch_worst",
        "xarch_kendall_tau",
        "xarch_kendall_p",
        "xarch_kendall_p_adjusted",
        "adv_delta_full",
        "eps_cross",
        "adv_dist_median_common",
        "adv_dist_q10_common",
        "adv_dist_mean_common",
        "adv_dist_farther_common",
        "adv_dist_median_common_full",
        "adv_dist_q10_common_full",
        "adv_dist_mean_common_full",
        "excess_test_loss",
        "excess_fair_var_acc",
        "excess_fair_var_acc_corr",
        "excess_fair_var_loss",
        "excess_fair_cv_acc",
        "excess_adv_acc",
        "excess_mia_auc",
        "mia_auc_delta",
        "mia_auc_delta_p",
        "mia_auc_delta_p_adjusted",
    }
)
"""Names of all of them. Their values change when other points are finished."""
