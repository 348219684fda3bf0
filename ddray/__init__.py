"""Sweeps of dataset distillation: accuracy, privacy, robustness, fairness.

    sweeps/*.yaml
       |  plan/      YAML -> points -> stages with keys -> jobs        pure and instant: no torch, no ray
       v
       |  run/       jobs -> Ray Tune (tune.py) or this process (local.py); run_stage is the one path both share
       |     `- trainables/   the science
       v
       |  store/     finished stages by key, each with a manifest: the only truth
       v
       |  measurements/   store -> measurements.parquet, exports; tables/ -> report beside the published numbers
       `- tracking.py   the same facts mirrored to MLflow, rebuildable at any time

This file imports nothing.
"""
