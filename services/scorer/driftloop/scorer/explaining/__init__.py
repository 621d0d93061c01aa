"""Why an answer is what it is: each column's share in it, on request, within a time.

``wish`` reads what a request asks for, ``shapley`` and ``mixtures`` compute (pure),
``explainer`` is what a version needs for it, ``pool`` does it beside the answers,
``telling`` writes it down.
"""
