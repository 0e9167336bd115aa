//! Why Shardis does not serve some of the functions.

/// A sentence, and the functions it holds for. A server serves all others.
pub const NOT_SERVED: &[(&str, &[&str])] = &[
    ("The header of 7.0 declares it, but no version of Redis has it.", &["RedisModule_ReplySetPushLength"]),
    (
        "AUTH and HELLO ask no module, as in Redis 7.0: a module logs a client in by a command of its own.",
        &["RedisModule_BlockClientOnAuth", "RedisModule_RegisterAuthCallback"],
    ),
    (
        "It is of 7.2, and about calls that block: here they are answered at once, as in Redis 7.0.",
        &["RedisModule_CallReplyPromiseSetUnblockHandler", "RedisModule_CallReplyPromiseAbort"],
    ),
    (
        "It is of 7.2: modules save by calling SAVE or BGSAVE, and load no files of the server.",
        &[
            "RedisModule_RdbStreamCreateFromFile",
            "RedisModule_RdbStreamFree",
            "RedisModule_RdbLoad",
            "RedisModule_RdbSave",
        ],
    ),
    (
        "There is no cluster.",
        &[
            "RedisModule_RegisterClusterMessageReceiver",
            "RedisModule_SendClusterMessage",
            "RedisModule_GetClusterNodeInfo",
            "RedisModule_GetClusterNodesList",
            "RedisModule_FreeClusterNodesList",
            "RedisModule_GetMyClusterID",
            "RedisModule_GetClusterSize",
            "RedisModule_SetClusterFlags",
        ],
    ),
    (
        "A process with a thread for each shard cannot be forked: the child would have one thread, and locks that nobody frees.",
        &[
            "RedisModule_Fork",
            "RedisModule_SendChildHeartbeat",
            "RedisModule_ExitFromChild",
            "RedisModule_KillForkChild",
        ],
    ),
];

/// Why the function of this name ("RedisModule_Fork") is not served, as a sentence.
pub fn reason_not_served(name: &str) -> Option<&'static str> {
    NOT_SERVED.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::FUNCTIONS;

    #[test]
    fn every_reason_is_about_functions_of_the_table_and_each_has_one() {
        let all: Vec<&str> = NOT_SERVED.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for (at, name) in all.iter().enumerate() {
            assert!(!all[..at].contains(name), "{name} has two reasons");
            let is_there = FUNCTIONS.iter().any(|function| function.name.to_str() == Ok(*name));
            assert!(is_there, "{name} is no function");
        }
        assert!(NOT_SERVED.iter().all(|(reason, _)| reason.ends_with('.')));
        assert_eq!(reason_not_served("RedisModule_Call"), None);
    }
}
