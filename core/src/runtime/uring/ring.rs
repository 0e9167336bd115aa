//! One io_uring: set up with the best flags the kernel has, filled, entered.
//!
//! The `io-uring` crate keeps the shared queues; `io_uring_enter` is called here directly, because the crate's
//! submitter neither keeps a registered ring descriptor between calls nor passes NO_IOWAIT, and because with
//! DEFER_TASKRUN every enter must carry GETEVENTS, or completions that are due stay undone.

use std::collections::VecDeque;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use io_uring::{IoUring, cqueue, squeue};

/// Requests that fit before they are handed to the kernel without waiting for the turn's end.
const SQ_ENTRIES: u32 = 1024;
/// Completions that fit; past it the kernel keeps them and ends multishots early, which costs time, never data.
const CQ_ENTRIES: u32 = 4096;

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;

const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_getevents_arg`
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_sz: u32,
    min_wait_usec: u32,
    timespec: u64,
}

/// `struct io_uring_rsrc_update`
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `struct __kernel_timespec`
#[repr(C)]
struct KernelTimespec {
    tv_sec: i64,
    tv_nsec: i64,
}

pub(super) struct Ring {
    ring: IoUring,
    /// What io_uring_enter is told: the descriptor, or its registered index, which saves a look-up a call.
    enter_fd: i32,
    enter_flags: u32,
    wait_flags: u32,
    /// Requests that did not fit while the kernel would not take any. In order, before all later ones.
    backlog: VecDeque<squeue::Entry>,
}

impl Ring {
    /// Makes a ring for this thread alone. Fails with the errno of io_uring_setup.
    pub(super) fn new() -> io::Result<Ring> {
        let ring = match Self::build(true) {
            // Kernels before 6.1 do not know DEFER_TASKRUN.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::build(false)?,
            outcome => outcome?,
        };
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }

        let wait_flags = if ring.params().is_feature_no_iowait() { ENTER_NO_IOWAIT } else { 0 };
        let mut ring =
            Ring { enter_fd: ring.as_raw_fd(), enter_flags: 0, wait_flags, ring, backlog: VecDeque::new() };
        ring.register_own_fd();
        Ok(ring)
    }

    fn build(defer_taskrun: bool) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(CQ_ENTRIES).setup_clamp().setup_submit_all().setup_taskrun_flag();
        if defer_taskrun {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        builder.build(SQ_ENTRIES)
    }

    /// Registers the ring with itself. Kernels before 5.18, and threads with 16 rings, go on with the descriptor.
    fn register_own_fd(&mut self) {
        let mut update = RsrcUpdate { offset: u32::MAX, resv: 0, data: self.ring.as_raw_fd() as u64 };
        // SAFETY: REGISTER_RING_FDS reads and writes exactly one rsrc_update, which is the local above.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                REGISTER_RING_FDS,
                &raw mut update,
                1u32,
            )
        };
        if registered == 1 {
            self.enter_fd = update.offset as i32;
            self.enter_flags = ENTER_REGISTERED_RING;
        }
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues a request for the next enter.
    ///
    /// # Safety
    ///
    /// What the request points to must stay valid and unmoved until its completion was taken.
    #[inline]
    pub(super) unsafe fn push(&mut self, request: &squeue::Entry) {
        // SAFETY: the caller's promise.
        if self.backlog.is_empty() && unsafe { self.ring.submission().push(request) }.is_ok() {
            return;
        }
        self.backlog.push_back(request.clone());
        self.push_backlog();
    }

    /// Moves the backlog into the queue, entering the kernel whenever that is full and as long as it takes some.
    #[cold]
    fn push_backlog(&mut self) {
        while let Some(request) = self.backlog.front() {
            // SAFETY: `push` took the promise for every request in the backlog.
            if unsafe { self.ring.submission().push(request) }.is_ok() {
                self.backlog.pop_front();
                continue;
            }
            // The kernel takes nothing when too many completions wait for us: the next turn takes those first.
            if !matches!(self.enter(0, 0, None), Ok(taken) if taken > 0) {
                return;
            }
        }
    }

    /// Submits everything queued, makes due completions visible and, if `wait` is set, waits until there is one: at
    /// most that long, `None` for ever.
    pub(super) fn submit(&mut self, wait: Option<Option<Duration>>) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.push_backlog();
        }
        let entered = match wait {
            None if self.has_nothing_to_do() => return Ok(()),
            None => self.enter(0, ENTER_GETEVENTS, None),
            // What did not fit must not wait for somebody else's event.
            Some(_) if !self.backlog.is_empty() => self.enter(0, ENTER_GETEVENTS, None),
            Some(timeout) => self.enter(1, ENTER_GETEVENTS | self.wait_flags, timeout),
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is over; a signal came; completions must be taken first; the kernel is short of memory.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether an enter that does not wait would change nothing.
    fn has_nothing_to_do(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.is_empty() && !submission.taskrun() && !submission.cq_overflow()
    }

    fn enter(&mut self, min_complete: u32, flags: u32, timeout: Option<Duration>) -> io::Result<usize> {
        let to_submit = self.ring.submission().len() as u32;
        let timespec = timeout.map(|timeout| KernelTimespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_sz: 0,
            min_wait_usec: 0,
            timespec: timespec.as_ref().map_or(0, |timespec| ptr::from_ref(timespec) as u64),
        };
        // SAFETY: with EXT_ARG the kernel reads one getevents_arg and the timespec it points to, both locals that
        // outlive the call. The requests it takes were pushed under `push`'s contract.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                to_submit,
                min_complete,
                flags | self.enter_flags | ENTER_EXT_ARG,
                &raw const arg,
                mem::size_of::<GetEventsArg>(),
            )
        };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(taken as usize) }
    }

    /// Takes completions, as many as there are and fit.
    #[inline]
    pub(super) fn take<'a>(&mut self, batch: &'a mut [MaybeUninit<cqueue::Entry>]) -> &'a [cqueue::Entry] {
        self.ring.completion().fill(batch)
    }
}

impl Drop for Ring {
    /// The registration holds the ring alive until its thread ends, so it has to be taken back.
    fn drop(&mut self) {
        if self.enter_flags & ENTER_REGISTERED_RING == 0 {
            return;
        }
        let mut update = RsrcUpdate { offset: self.enter_fd as u32, resv: 0, data: 0 };
        // SAFETY: UNREGISTER_RING_FDS reads exactly one rsrc_update, which is the local above.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                UNREGISTER_RING_FDS,
                &raw mut update,
                1u32,
            );
        }
    }
}
