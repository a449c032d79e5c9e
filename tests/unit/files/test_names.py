"""The order of entities and their labels, against the schema of BIDS."""

import random
import re

from bidsschematools.schema import load_schema

from bids_roi.files.names import find_invalid_labels, sort_entities

SCHEMA = load_schema()
ENTITIES = [SCHEMA.objects.entities[key] for key in SCHEMA.rules.entities]
KEYS = [entity.name for entity in ENTITIES]


def test_the_order_is_the_schemas():
    keys = random.Random(0).sample(KEYS, len(KEYS))
    assert [key for key, _ in sort_entities([(key, "1") for key in keys])] == KEYS


def test_what_the_schema_does_not_know_stays_where_it_was():
    given = [("sub", "1"), ("reg", "x"), ("run", "1"), ("acq", "y"), ("new", "z")]
    expected = [("sub", "1"), ("reg", "x"), ("acq", "y"), ("new", "z"), ("run", "1")]
    assert sort_entities(given) == expected


def test_labels_are_judged_as_the_schema_does():
    for entity in ENTITIES:
        pattern = SCHEMA.objects.formats[entity.format].pattern
        for label in ("01", "post", "mag", "a+b", "a.b", "a b", "L", "on"):
            allowed = re.fullmatch(pattern, label) is not None
            if "enum" in entity:
                allowed = label in [str(getattr(v, "value", v)) for v in entity.enum]
            found = find_invalid_labels([(entity.name, label)])
            assert (not found) == allowed, (entity.name, label)
