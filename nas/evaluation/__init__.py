"""What a candidate is worth and what finding out may cost: evaluators, objectives, budgets."""
