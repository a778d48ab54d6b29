use super::*;
use crate::route::Protocol;

fn key(last: u8) -> RouteKey {
    RouteKey::new(ipnet::IpNet::from(std::net::IpAddr::from([10, 0, 0, last])), 64)
}

fn route(last: u8, object: u32) -> Route {
    let action = Action::Object(object);
    Route { key: key(last), protocol: Protocol::WEFT, action, preferred_source: None }
}

fn take(table: &mut Table) -> Option<RouteKey> {
    table.take().and_then(|place| table.known_at(place)).map(|known| known.key)
}

#[test]
fn keys_come_once_and_in_order() {
    let mut table = Table::default();
    table.mark_all([key(2), key(1), key(2)]);
    let (two, one) = (table.take().unwrap(), table.take().unwrap());
    assert_eq!((table.known_at(two).unwrap().key, table.known_at(one).unwrap().key), (key(2), key(1)));
    assert_eq!(table.take(), None);
    assert!(table.unfinished() == 2 && table.taken(&key(1)) == Some(one));
    table.done(one);
    table.done(two);
    assert!(table.unfinished() == 0 && table.taken(&key(1)).is_none());
}

#[test]
fn a_key_that_was_taken_waits_for_what_becomes_of_it() {
    let mut table = Table::default();
    let place = table.mark(key(1));
    table.take();
    table.mark_all([key(1), key(1)]);
    assert!(table.is_again(place) && table.are_again());
    assert_eq!(table.take(), None);
    table.done(place);
    assert!(!table.are_again() && !table.is_again(place));
    assert_eq!(take(&mut table), Some(key(1)));
    table.done(place);
    assert!(table.unfinished() == 0);
}

#[test]
fn keys_over_an_object_come_first_where_that_is_asked_for() {
    let mut table = Table::default();
    for last in 1..=4 {
        table.hold(route(last, u32::from(last % 2)));
        table.mark(key(last));
    }
    table.advance(&[1, 0], 1);
    assert_eq!(table.advanced_count(), 2);
    let taken: Vec<_> = std::iter::from_fn(|| take(&mut table)).collect();
    assert_eq!(taken, [1, 3, 2, 4].map(key), "each once");
}

#[test]
fn what_waits_and_is_wanted_is_owed() {
    let mut table = Table::default();
    let one = table.mark(key(1));
    assert!(!table.are_owed());
    table.learn(one, Some(7));
    assert!(table.are_owed());
    table.take();
    assert!(!table.are_owed(), "it is under way");
    table.mark(key(1));
    assert!(table.are_owed(), "and to be looked at again");
    table.done(one);
    assert!(table.are_owed());
    table.learn(one, None);
    assert!(!table.are_owed());
    table.mark(RouteKey::new(key(1).destination(), POD_METRIC));
    assert!(table.are_owed());
}

#[test]
fn an_object_is_deserted_once_nothing_over_it_is_learned() {
    let mut table = Table::default();
    let deserted = |table: &Table| table.deserted().collect::<Vec<_>>();
    let places = [1, 2].map(|last| table.mark(key(last)));
    for (place, last) in places.into_iter().zip(1..) {
        table.learn(place, Some(7));
        table.hold_at(place, route(last, 5));
    }
    table.learn(places[0], None);
    assert_eq!(deserted(&table), []);
    table.learn(places[1], None);
    assert_eq!(deserted(&table), [(2, 5)]);
    table.learn(places[1], Some(7));
    table.hold_at(places[1], route(2, 6));
    assert_eq!(deserted(&table), [(1, 5)]);
    table.let_go_at(places[0]);
    assert_eq!((deserted(&table), table.over(6)), (vec![], 1));
}

#[test]
fn a_place_is_free_once_nothing_is_known_of_its_key() {
    let mut table = Table::default();
    let one = table.mark(key(1));
    table.learn(one, Some(7));
    table.take();
    table.hold_at(one, route(1, 5));
    table.done(one);
    table.learn(one, None);
    assert_eq!((table.held_count(), table.over(5), table.learned(&key(1))), (1, 1, None));
    let two = table.mark(key(2));
    assert_ne!(one, two);
    assert_eq!(table.let_go(&key(1)), Some(route(1, 5)));
    assert!(table.take_idle() && !table.take_idle());
    assert_eq!((table.mark(key(3)), table.held_count(), table.routes().count()), (one, 0, 0));
    assert!(table.find(&key(1)).is_none());
}

#[test]
fn a_key_that_comes_back_has_its_place_again() {
    let mut table = Table::default();
    let one = table.mark(key(1));
    for _ in 0..100 {
        table.take();
        table.done(one);
        assert_eq!(table.unused, [one]);
        assert_eq!(table.mark(key(1)), one);
    }
    assert_ne!(table.mark(key(2)), one, "it is in use");
    assert!(table.unused.is_empty() && table.entries.len() == 2);
}

#[test]
fn what_was_learned_goes_to_another_key_which_comes_first() {
    let mut table = Table::default();
    let one = table.mark(key(1));
    table.learn(one, Some(7));
    table.take();
    table.done(one);
    table.pass_on(key(1), key(2));
    assert_eq!(table.learned_keys(|_| true), [key(2)]);
    assert_eq!((take(&mut table), take(&mut table)), (Some(key(2)), Some(key(1))));
}

#[test]
fn an_entry_fits_into_a_cache_line() {
    assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
}

#[test]
fn a_route_is_given_back_as_it_was() {
    let mut table = Table::default();
    let source = |last: u16| Some(IpAddr::from([0x20, 1, 0, 0, 0, 0, 0, last]));
    let routes: Vec<Route> =
        (0..300).map(|n| Route { preferred_source: source(n), ..route((n % 256) as u8, 5) }).collect();
    for expected in routes {
        let key = expected.key;
        table.hold(expected.clone());
        assert_eq!(table.held(&key).as_deref(), Some(&expected));
        assert_eq!(table.let_go(&key), Some(expected));
    }
    let pod = Route { protocol: Protocol::WEFT_PODS, action: Action::Blackhole, ..route(1, 5) };
    table.hold(pod.clone());
    assert_eq!((table.over(5), table.hold(route(1, 6))), (0, Some(pod)));
    assert_eq!((table.over(6), table.let_go(&key(1)), table.held_count()), (1, Some(route(1, 6)), 0));
}

#[test]
fn a_dump_tells_what_is_other_than_thought() {
    let mut table = Table::default();
    table.hold(route(1, 5));
    table.hold(route(2, 5));
    table.hold(route(3, 5));
    let (others, all) = table.replace_held(vec![route(1, 5), route(2, 6), route(4, 5)]);
    assert_eq!(others, [key(2), key(3)].into());
    assert_eq!(all, [1, 2, 3, 4].map(key).into());
    assert_eq!((table.over(5), table.over(6), table.held_count()), (2, 1, 3));
    assert_eq!(table.forget_over(|id| id == 6), [key(1), key(4)]);
    assert_eq!(table.held_count(), 1);
}
