"""What candidates are to a target, as details and rows of an audit say it. Imports nothing, for readers of tables."""

ROLES = ("member_init", "member_other", "non_member", "canary", "reserve")
"""By code: a member whose image the distillation started from; any other member; an image that could have been one; an
image with a wrong label (member or not); an image that is never a member."""
INIT, OTHER, NON_MEMBER, CANARY, RESERVE = range(len(ROLES))
