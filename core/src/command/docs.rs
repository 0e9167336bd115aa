//! The documentation that COMMAND DOCS returns for a command: plain data in its row.

use crate::command::syntax::Argument;

/// Documentation of a command. The sentences are ours, the facts Redis'.
#[derive(Clone, Copy)]
pub struct Docs {
    /// One sentence without a full stop.
    pub summary: &'static str,
    /// The Redis version which introduced it.
    pub since: &'static str,
    /// `string`, `generic`, `connection`, `server`, ...
    pub group: &'static str,
    pub complexity: &'static str,
    /// The arguments in the notation of [`crate::command::syntax`].
    pub arguments: &'static str,
    /// The same, already taken apart: for commands of modules, which have no such notation.
    pub argument_tree: &'static [Argument],
    /// `request_policy:all_shards`, `nondeterministic_output`, ...
    pub tips: &'static [&'static str],
    /// (version, change).
    pub history: &'static [(&'static str, &'static str)],
    /// (since which version, what to use instead), for deprecated commands.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Not for users: used between servers, or by developers of the server.
    pub is_internal: bool,
}

impl Docs {
    pub const NONE: Docs = Docs {
        summary: "",
        since: "",
        group: "",
        complexity: "",
        arguments: "",
        argument_tree: &[],
        tips: &[],
        history: &[],
        deprecated: None,
        is_internal: false,
    };

    pub const fn new(group: &'static str, since: &'static str, summary: &'static str) -> Docs {
        Docs { summary, since, group, ..Docs::NONE }
    }

    pub const fn complexity(mut self, complexity: &'static str) -> Docs {
        self.complexity = complexity;
        self
    }

    pub const fn arguments(mut self, arguments: &'static str) -> Docs {
        self.arguments = arguments;
        self
    }

    pub const fn tips(mut self, tips: &'static [&'static str]) -> Docs {
        self.tips = tips;
        self
    }

    pub const fn history(mut self, history: &'static [(&'static str, &'static str)]) -> Docs {
        self.history = history;
        self
    }

    pub const fn internal(mut self) -> Docs {
        self.is_internal = true;
        self
    }

    pub const fn deprecated(mut self, since: &'static str, instead: &'static str) -> Docs {
        self.deprecated = Some((since, instead));
        self
    }
}
