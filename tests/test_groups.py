"""pytest-xdist hears which tests belong together: pytest 9.2 hides it from its release 3.8, without a word."""


def test_the_group_of_a_test_is_told(request):
    told = request.node.nodeid.endswith("@tests/test_groups.py")
    assert told == getattr(request.config.option, "loadgroup", False)
