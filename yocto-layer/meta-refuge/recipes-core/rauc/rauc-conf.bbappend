# In its place for the box alone: other distributions keep theirs.
inherit_defer ${@bb.utils.contains('DISTRO', 'refuge-os', 'refuge-rauc-conf', '', d)}
