"""What the commands do that have more to do than to call one function.

    evaluate.py    import a distilled set or a trained model, then its evaluations

This file imports nothing.
"""
