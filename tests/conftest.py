"""For all tests: property tests have no deadlines, which busy CI machines miss."""

try:
    from hypothesis import settings

    settings.register_profile("no_deadline", deadline=None)
    settings.load_profile("no_deadline")
except ImportError:  # the packaging tests run without it, against a bare wheel
    pass
