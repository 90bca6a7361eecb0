//! Refuge stores, syncs and shares people's own data, without a company in between.
