//! Refuses the commands that wait for locks while a program is over busy-reply-threshold, as all others are refused then.

use super::super::Worker;
use super::Waiter;
use crate::command::CommandError;
use crate::command::admission::{ProgramKind, busy_error};
use crate::command::table::flag;
use crate::shard::lock::LockRequestId;

impl Worker {
    /// Replies BUSY to the commands and EXECs that wait for locks of this shard alone. Called in each turn while a program
    /// of this kind is busy: the last of them were admitted, at their homes, before it was.
    pub(in crate::worker) fn refuse_waiting(&mut self, kind: ProgramKind) {
        let mut waiting: Vec<LockRequestId> = self
            .transact
            .waiting
            .iter()
            .filter(|(_, (waiter, _))| self.is_refused_while_busy(waiter))
            .map(|(&lock_request, _)| lock_request)
            .collect();
        waiting.sort_unstable();
        for lock_request in waiting {
            // It may have been granted because another one was withdrawn.
            if !self.transact.waiting.contains_key(&lock_request)
                || !self.shard.locks.withdraw(lock_request, &mut self.transact.granted)
            {
                continue;
            }
            let (waiter, _) = self.transact.waiting.remove(&lock_request).expect("it was there just now");
            self.refuse_waiter(waiter, busy_error(kind));
            self.resume_granted();
        }
    }

    fn is_refused_while_busy(&self, waiter: &Waiter) -> bool {
        match waiter {
            Waiter::Plan(_) => false,
            Waiter::Command(command) => !self.table.entry(command.call.command).row.has(flag::ALLOW_BUSY),
            Waiter::Queue(_) => true,
        }
    }

    fn refuse_waiter(&mut self, waiter: Waiter, error: CommandError) {
        let (home, reply_id, call, error) = match waiter {
            Waiter::Plan(_) => unreachable!("a plan is not refused"),
            Waiter::Command(command) => (command.home, command.reply_id, command.call, error),
            Waiter::Queue(parked) => {
                if parked.watches {
                    self.shard.observers.change_watch(|watch| watch.remove(parked.call.client));
                }
                self.shard.stats.exec_aborted_by_error.add(1);
                let reason = "EXECABORT Transaction discarded because of: ";
                let error = CommandError::quoting(reason, error.as_bytes(), "");
                (parked.home, parked.reply_id, parked.call, error)
            }
        };
        self.shard.stats.command(call.command).rejected.add(1);
        self.shard.stats.error(error.code());
        let reply = [b"-", error.as_bytes(), b"\r\n"].concat();
        self.answer(home, reply_id, &reply);
    }
}
