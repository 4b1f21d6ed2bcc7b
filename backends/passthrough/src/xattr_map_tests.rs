use super::*;

fn map(text: &str) -> XattrMap {
    text.parse().unwrap()
}

fn error(text: &str) -> XattrMapError {
    text.parse::<XattrMap>().unwrap_err()
}

fn to_host(map: &XattrMap, name: &str) -> Result<String, Errno> {
    map.to_host(name.as_bytes())
        .map(|name| String::from_utf8(name.into_owned()).unwrap())
}

fn to_guest<'a>(map: &XattrMap, name: &'a str) -> Option<&'a str> {
    map.to_guest(name.as_bytes())
        .map(|name| std::str::from_utf8(name).unwrap())
}

#[test]
fn everything_can_live_behind_a_prefix() {
    let map = map(":prefix:all::user.virtiofs.::bad:all:::");
    let host = "user.virtiofs.security.capability";
    assert_eq!(to_host(&map, "security.capability").unwrap(), host);
    assert_eq!(to_guest(&map, host), Some("security.capability"));
    assert_eq!(to_guest(&map, "security.selinux"), None);
}

#[test]
fn rules_are_tried_in_order_and_may_choose_their_separator() {
    let map = map("
        /prefix/all/trusted./user.virtiofs./
        ,bad,server,,trusted.,
        /bad/client/user.virtiofs.//
        /ok/all///
    ");
    assert_eq!(
        to_host(&map, "trusted.overlay").unwrap(),
        "user.virtiofs.trusted.overlay"
    );
    assert_eq!(
        to_guest(&map, "user.virtiofs.trusted.overlay"),
        Some("trusted.overlay")
    );
    assert_eq!(to_guest(&map, "trusted.overlay"), None);
    assert_eq!(to_host(&map, "user.virtiofs.x"), Err(Errno::PERM));
    assert_eq!(to_host(&map, "user.x").unwrap(), "user.x");
    assert_eq!(to_guest(&map, "user.x"), Some("user.x"));
}

#[test]
fn unsupported_names_are_refused_with_their_own_errno_and_hidden() {
    let map = map(":unsupported:all:security.:security.::ok:all:::");
    assert_eq!(to_host(&map, "security.selinux"), Err(Errno::OPNOTSUPP));
    assert_eq!(to_guest(&map, "security.selinux"), None);
}

#[test]
fn a_scope_holds_for_its_side_only() {
    let map = map(":bad:client:user.a:::bad:server::user.b::ok:all:::");
    assert_eq!(to_host(&map, "user.a"), Err(Errno::PERM));
    assert_eq!(to_guest(&map, "user.a"), Some("user.a"));
    assert_eq!(to_host(&map, "user.b").unwrap(), "user.b");
    assert_eq!(to_guest(&map, "user.b"), None);
}

#[test]
fn map_without_a_key_is_a_prefix_for_everything() {
    assert_eq!(
        map(":map::user.virtiofs.:"),
        map(":prefix:all::user.virtiofs.: :bad:all:::")
    );
}

#[test]
fn map_with_a_key_keeps_both_sides_apart() {
    assert_eq!(
        map("/map/trusted./user.virtiofs./"),
        map("/prefix/all/trusted./user.virtiofs./ /bad/all/user.virtiofs./trusted./ /ok/all///")
    );
}

#[test]
fn a_renamed_attribute_is_known_as_such() {
    let renamed = |text: &str| map(text).renamed(b"security.capability");
    assert_eq!(
        renamed(":map::user.v.:").as_deref(),
        Some(c"user.v.security.capability")
    );
    assert_eq!(renamed(":ok:all:::"), None);
    assert_eq!(renamed(":bad:all:::"), None);
    assert_eq!(renamed(":prefix:all::::ok:all:::"), None);
}

#[test]
fn errors_name_the_rule_and_what_would_be_right() {
    let rows = [
        (
            "",
            "the xattr map is empty; ':ok:all:::' lets everything pass",
        ),
        (
            ":good:all:::",
            "xattr map, rule 1: type 'good' is none of prefix, ok, bad, unsupported, map",
        ),
        (
            ":ok:all::::ok:guest:::",
            "xattr map, rule 2: scope 'guest' is none of client, server, all",
        ),
        (
            ":prefix:all:trusted.:user.vm.",
            "xattr map, rule 1: a field is missing, or the ':' after the last one",
        ),
        (
            ":map::a.: :ok:all:::",
            "xattr map, rule 1: 'map' is only allowed as the last rule, and once",
        ),
        (
            ":map::a.::map::b.:",
            "xattr map, rule 1: 'map' is only allowed as the last rule, and once",
        ),
        (
            ":ok:all:\0::",
            "xattr map, rule 1: a name cannot hold a NUL",
        ),
        (
            ":prefix:all:trusted.:user.v.::ok:server:::",
            "the xattr map does not say what happens to all names of the guest; \
             end it with ':bad:all:::' or ':ok:all:::'",
        ),
        (
            ":ok:client:::",
            "the xattr map does not say what happens to all names of the host; \
             end it with ':bad:all:::' or ':ok:all:::'",
        ),
    ];
    for (text, message) in rows {
        assert_eq!(error(text).to_string(), message, "{text}");
    }
}
