"""The rules of the gateway's own aggregates, by noun. Pure; run by `keys.Keys.execute` and by the specs."""

from services.gateway.decider.account import ACCOUNT
from services.gateway.decider.api_key import API_KEY
from services.gateway.decider.usage import USAGE

AGGREGATES = (API_KEY, ACCOUNT, USAGE)

__all__ = ["ACCOUNT", "AGGREGATES", "API_KEY", "USAGE"]
