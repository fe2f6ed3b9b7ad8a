"""The speed of backends: each op at sizes that matter, verified and then timed, beside its floor and its peers."""
