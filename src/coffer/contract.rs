//! The suite every [`Backend`] must pass: the contract of `backend.rs`, one function a promise.
