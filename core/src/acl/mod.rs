//! Access control: users, and what each may do.
//!
//! A [`User`] has [`Selector`]s, each of which allows commands over the keys and channels of certain patterns. A request is
//! allowed if one selector allows all of it. All [`Users`] together are one value that never changes; the server publishes
//! another one when a rule changes.
//!
//! Pure: nothing here knows a connection or a file. Rules, their errors and their descriptions are those of Redis 7.0.15.

pub mod absent;
mod channels;
mod commands;
mod describe;
mod file;
mod log;
mod password;
mod rules;
mod selector;
#[cfg(test)]
mod tests;
mod user;
mod users;

pub use commands::{category, named, of_category};
pub use log::{AclLog, AclLogEntry};
pub use rules::{RuleContext, has_blanks};
pub use selector::Selector;
pub use user::{DEFAULT_USER, User, UserId};
pub use users::{SetUserError, Users};
