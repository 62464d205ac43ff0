//! Tests of the transitions of rights: without a positive result, nothing is allowed.

use super::*;

const BROADCAST: Permissions = Permissions {
    broadcast: true,
    presence: false,
};
const PRESENCE: Permissions = Permissions {
    broadcast: false,
    presence: true,
};
const NOTHING: Permissions = Permissions {
    broadcast: false,
    presence: false,
};
const READ_PRESENCE: CheckKind = CheckKind::Read { presence: true };

fn refused() -> AuthorizeError {
    AuthorizeError::Policy {
        sqlstate: "22P02".to_owned(),
    }
}

fn rights(write: WriteState, presence: PresenceReading) -> Rights {
    let mut rights = Rights::new(true, false);
    rights.read = ReadPermissions {
        broadcast: true,
        presence,
    };
    rights.write = write;
    rights
}

#[test]
fn a_write_is_carried_out_only_if_a_check_allowed_it() {
    use PresenceReading::{Needed, NotNeeded};
    use WriteDecision::{Allowed, Check, Refused, Wait};
    use Writing::{Broadcast, Presence};
    let failed = WriteState::Failed(AuthorizeError::Unavailable);
    let unavailable = || Refused(Some(AuthorizeError::Unavailable));
    let known = WriteState::Known;
    let cases = [
        (
            WriteState::Unchecked,
            NotNeeded,
            Broadcast,
            Check(CheckKind::Write),
        ),
        (
            WriteState::Unchecked,
            NotNeeded,
            Presence,
            Check(READ_PRESENCE),
        ),
        (
            WriteState::Unchecked,
            Needed(false),
            Presence,
            Check(CheckKind::Write),
        ),
        (WriteState::Checking, NotNeeded, Broadcast, Wait),
        (WriteState::Checking, NotNeeded, Presence, Wait),
        (known(BROADCAST), NotNeeded, Broadcast, Allowed),
        (known(BROADCAST), NotNeeded, Presence, Check(READ_PRESENCE)),
        (known(BROADCAST), Needed(true), Presence, Refused(None)),
        (known(PRESENCE), Needed(false), Presence, Allowed),
        (known(PRESENCE), Needed(false), Broadcast, Refused(None)),
        (known(NOTHING), Needed(true), Broadcast, Refused(None)),
        (failed.clone(), NotNeeded, Broadcast, unavailable()),
        (failed, NotNeeded, Presence, unavailable()),
    ];
    for (write, presence, writing, expected) in cases {
        let case = format!("{write:?}, {presence:?}, {writing:?}");
        assert_eq!(rights(write, presence).decide(writing), expected, "{case}");
    }
}

#[test]
fn a_result_determines_the_permissions_to_write_or_to_read_presence() {
    use PresenceReading::{Needed, NotNeeded};
    let unavailable = || Err(AuthorizeError::Unavailable);
    // (kind, result, resulting state of writing, resulting state of reading presence)
    let cases = [
        (
            CheckKind::Write,
            Ok(BROADCAST),
            WriteState::Known(BROADCAST),
            NotNeeded,
        ),
        (
            READ_PRESENCE,
            Ok(Permissions::ALL),
            WriteState::Unchecked,
            Needed(true),
        ),
        (
            READ_PRESENCE,
            Ok(NOTHING),
            WriteState::Unchecked,
            Needed(false),
        ),
        (
            READ_PRESENCE,
            Err(refused()),
            WriteState::Known(NOTHING),
            Needed(false),
        ),
        (
            CheckKind::Write,
            Err(refused()),
            WriteState::Known(NOTHING),
            Needed(false),
        ),
        (
            CheckKind::Write,
            unavailable(),
            WriteState::Failed(AuthorizeError::Unavailable),
            NotNeeded,
        ),
    ];
    for (kind, result, write, presence) in cases {
        let case = format!("{kind:?}, {result:?}");
        let mut rights = rights(WriteState::Checking, NotNeeded);
        let is_read_changed = rights.apply_write(kind, result.clone());
        assert_eq!(rights.write, write, "{case}");
        assert_eq!(rights.read.presence, presence, "{case}");
        assert!(rights.read.broadcast, "{case}");
        assert_eq!(
            is_read_changed,
            kind == READ_PRESENCE && result.is_ok(),
            "{case}"
        );
    }
}

#[test]
fn presence_that_was_not_part_of_a_check_is_never_readable() {
    let mut reading = ReadPermissions::none(false);
    reading.set(Permissions::ALL);
    assert_eq!(reading.permissions(), BROADCAST);
    assert_eq!(reading.check_kind(), CheckKind::Read { presence: false });
    reading.need_presence();
    assert_eq!(reading.permissions(), BROADCAST);
    assert_eq!(reading.check_kind(), READ_PRESENCE);
    reading.set(Permissions::ALL);
    assert_eq!(reading.permissions(), Permissions::ALL);
    reading.need_presence();
    assert_eq!(reading.permissions(), Permissions::ALL);
}

#[test]
fn new_permissions_to_read_are_applied_only_if_none_is_lost() {
    let cases = [
        (Permissions::ALL, Permissions::ALL, Ok(())),
        (BROADCAST, Permissions::ALL, Ok(())),
        (PRESENCE, Permissions::ALL, Ok(())),
        (Permissions::ALL, BROADCAST, Err(ReadsLess::Part)),
        (Permissions::ALL, PRESENCE, Err(ReadsLess::Part)),
        (BROADCAST, PRESENCE, Err(ReadsLess::Part)),
        (PRESENCE, BROADCAST, Err(ReadsLess::Part)),
        (Permissions::ALL, NOTHING, Err(ReadsLess::Nothing)),
        (BROADCAST, NOTHING, Err(ReadsLess::Nothing)),
    ];
    for (had, read, expected) in cases {
        let mut rights = Rights::new(true, true);
        rights.apply_join(had);
        assert_eq!(rights.apply_read(read), expected, "{had:?}, {read:?}");
        let kept = if expected.is_ok() { read } else { had };
        assert_eq!(rights.read.permissions(), kept, "{had:?}, {read:?}");
    }
}

#[test]
fn a_change_resets_the_permissions_to_write_and_makes_a_recheck_due() {
    use Recheck::{Current, Due, Running};
    for (before, after) in [(Current, Due), (Due, Due), (Running, Running)] {
        let mut rights = rights(WriteState::Known(BROADCAST), PresenceReading::NotNeeded);
        rights.recheck = before;
        rights.note_change();
        assert_eq!(rights.recheck, after);
        assert_eq!((rights.round, rights.write), (1, WriteState::Unchecked));
    }
    let mut checking = rights(WriteState::Checking, PresenceReading::NotNeeded);
    checking.note_change();
    assert_eq!(
        checking.write,
        WriteState::Checking,
        "its result is outdated"
    );
}
