//! The decisions, driven by hand.
