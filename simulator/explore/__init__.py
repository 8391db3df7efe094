"""Sweeps over machines and networks: planned, computed on workers, kept in a store from which a run goes on."""

from .forecast import Forecast, forecast
from .plan import Plan, read_plan
from .store import Counts, Place, Point, Store
from .sweep import Sweep, sweep

__all__ = ["Counts", "Forecast", "Place", "Plan", "Point", "Store", "Sweep", "forecast", "read_plan", "sweep"]
