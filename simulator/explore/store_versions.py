"""The tables of a store of runs, and how those of earlier versions become them."""

TABLES = """
CREATE TABLE points (
    key TEXT PRIMARY KEY,
    numerics INTEGER NOT NULL,
    identity TEXT NOT NULL,
    record TEXT,
    error TEXT,
    seconds REAL NOT NULL,
    stored TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sweeps (
    sweep TEXT PRIMARY KEY,
    points INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE places (
    sweep TEXT NOT NULL,
    place INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    key TEXT,
    error TEXT,
    PRIMARY KEY (sweep, place)
) WITHOUT ROWID;
CREATE INDEX places_by_key ON places (key);
CREATE TABLE searches (
    sweep TEXT PRIMARY KEY,
    goal TEXT NOT NULL
) WITHOUT ROWID;
"""

# Of version 1, which kept the error of a refused point as that of a computed one, and no number of a sweep's points.
_FROM_VERSION_1 = """
DELETE FROM points WHERE record IS NULL;
ALTER TABLE points DROP COLUMN final;
ALTER TABLE sweeps RENAME TO places_1;
DROP INDEX sweeps_by_key;
CREATE TABLE sweeps (sweep TEXT PRIMARY KEY, points INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE places (
    sweep TEXT NOT NULL, place INTEGER NOT NULL, parameters TEXT NOT NULL, key TEXT, error TEXT,
    PRIMARY KEY (sweep, place)
) WITHOUT ROWID;
CREATE INDEX places_by_key ON places (key);
INSERT INTO sweeps SELECT sweep, count(*) FROM places_1 GROUP BY sweep;
INSERT INTO places SELECT sweep, place, parameters, key, NULL FROM places_1;
DROP TABLE places_1;
"""
_FROM_VERSION_2 = "CREATE TABLE searches (sweep TEXT PRIMARY KEY, goal TEXT NOT NULL) WITHOUT ROWID"

# Of version 3, which had the size of the grid among the goal, and no axes.
_FROM_VERSION_3 = """
UPDATE searches SET goal = json_object(
    'goal', json_remove(goal, '$.grid'), 'grid', json_extract(goal, '$.grid'), 'axes', json('[]')
) WHERE json_valid(goal) AND json_extract(goal, '$.objectives') IS NOT NULL
"""

# By version, from the first, what makes the next of it.
UPGRADES = (_FROM_VERSION_1, _FROM_VERSION_2, _FROM_VERSION_3)
VERSION = 1 + len(UPGRADES)
