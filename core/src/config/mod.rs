#[derive(Clone)]
pub struct Config {
    pub databases: u32,
    pub proto_max_bulk_len_bytes: u64,
    pub client_query_buffer_limit_bytes: u64,
    pub maxmemory_bytes: u64,
    pub requirepass: String,
    pub protected_mode: bool,
    pub maxclients: u32,
    pub timeout_s: u32,
    pub hz: u32,
    pub slowlog_max_len: u64,
    pub slowlog_log_slower_than_us: i64,
    pub latency_tracking: bool,
    pub enable_debug_command: DebugAccess,
    pub client_output_buffer_limit_normal: L,
    pub unixsocket: String,
}
#[derive(Clone, Copy)]
pub enum DebugAccess {
    No,
    Yes,
    Local,
}
#[derive(Clone, Copy)]
pub struct L {
    pub hard_bytes: u64,
    pub soft_bytes: u64,
    pub soft_seconds: u64,
}
impl Default for Config {
    fn default() -> Config {
        Config {
            databases: 16,
            proto_max_bulk_len_bytes: 512 << 20,
            client_query_buffer_limit_bytes: 1 << 30,
            maxmemory_bytes: 0,
            requirepass: String::new(),
            protected_mode: true,
            maxclients: 10000,
            timeout_s: 0,
            hz: 10,
            slowlog_max_len: 128,
            slowlog_log_slower_than_us: 10000,
            latency_tracking: true,
            enable_debug_command: DebugAccess::Yes,
            client_output_buffer_limit_normal: L { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 },
            unixsocket: String::new(),
        }
    }
}
