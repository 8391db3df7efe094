"""Sweeps over machines and networks: planned, computed on workers, kept in a store from which a run goes on."""

from .plan import Plan, read_plan
from .store import Point, Store
from .sweep import Forecast, Sweep, forecast, sweep

__all__ = ["Forecast", "Plan", "Point", "Store", "Sweep", "forecast", "read_plan", "sweep"]
