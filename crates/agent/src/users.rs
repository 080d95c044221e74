//! Users and groups, from the guest's files. A static program has no name service: users who are
//! not in `/etc/passwd` are known by number only.

use std::fs;

use machinist_sys::vfork::Ids;

pub(crate) const PASSWD: &str = "/etc/passwd";
pub(crate) const GROUP: &str = "/etc/group";

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
    pub(crate) shell: String,
}

impl User {
    /// What a process is to become that runs as this user; none where the agent is that user.
    pub(crate) fn ids(&self) -> Option<Ids> {
        let other = self.uid != rustix::process::getuid().as_raw();
        other.then(|| Ids {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
        })
    }
}

/// Finds a user by name or number.
pub(crate) fn find(name: &str) -> Option<User> {
    let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
    let group = fs::read_to_string(GROUP).unwrap_or_default();
    find_in(name, &passwd, &group)
}

fn find_in(name: &str, passwd: &str, group: &str) -> Option<User> {
    let number: Option<u32> = name.parse().ok();
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [login, _, uid, gid, _, home, shell] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (login == name || number == Some(uid)).then(|| User {
            name: login.to_owned(),
            uid,
            gid,
            groups: Vec::new(),
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    });
    let mut user = entry.or_else(|| fallback(name, number))?;
    user.groups = groups_of(&user.name, user.gid, group);
    Some(user)
}

/// Root is there in a guest without any files, and so is everyone who is called by number.
fn fallback(name: &str, number: Option<u32>) -> Option<User> {
    let uid = if name == "root" { 0 } else { number? };
    let root = uid == 0;
    Some(User {
        name: if root { "root" } else { name }.to_owned(),
        uid,
        gid: uid,
        groups: Vec::new(),
        home: if root { "/root" } else { "/" }.to_owned(),
        shell: "/bin/sh".to_owned(),
    })
}

fn groups_of(name: &str, gid: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [_, _, number, members] = fields[..]
            && members.split(',').any(|member| member == name)
            && let Ok(number) = number.parse()
            && !groups.contains(&number)
        {
            groups.push(number);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:100::/home/ann:/bin/zsh\n";
    const GROUPS: &str = "root:x:0:\nusers:x:100:\nwheel:x:1:bob,ann\nkvm:x:78:ann\nbad\n";

    #[test]
    fn a_user_has_all_groups_that_name_it() {
        let ann = find_in("ann", USERS, GROUPS).unwrap();
        assert_eq!((ann.uid, ann.gid), (1000, 100));
        assert_eq!(ann.groups, [100, 1, 78]);
        assert_eq!(find_in("1000", USERS, GROUPS), Some(ann));
    }

    #[test]
    fn root_needs_no_files() {
        assert_eq!(find_in("root", "", "").unwrap().home, "/root");
        assert_eq!(find_in("nobody", "", ""), None);
        assert_eq!(find_in("77", "", "").unwrap().uid, 77);
    }
}
