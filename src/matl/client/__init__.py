"""The SDK: a client of a federation, whatever it trains with."""

from matl.client.rounds import Round
from matl.client.sdk import AsyncMATLClient
from matl.client.sync import MATLClient

__all__ = ["AsyncMATLClient", "MATLClient", "Round"]
