"""Sweeps and searches over machines and networks: computed on workers, kept in a store from which a run goes on."""

from .compromises import compromises
from .forecast import Forecast, SearchForecast, forecast, forecast_search
from .found import Found
from .objectives import OBJECTIVES, Goal
from .plan import Plan, read_plan, read_search
from .search import Search, read_found, search
from .store import Counts, Place, Point, Store
from .sweep import Sweep, sweep

__all__ = [
    "OBJECTIVES", "Counts", "Forecast", "Found", "Goal", "Place", "Plan", "Point", "Search", "SearchForecast", "Store",
    "Sweep", "compromises", "forecast", "forecast_search", "read_found", "read_plan", "read_search", "search", "sweep",
]  # fmt: skip
