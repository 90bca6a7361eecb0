//! Document databases through their library: what only many of them together show.

mod histories;
