"""Conditions that have to hold meanwhile."""

from machinist._polling import PollingCondition, PollingConditionError

PollingConditionFailed = PollingConditionError
"""Its older name."""

__all__ = ["PollingCondition", "PollingConditionError", "PollingConditionFailed"]
