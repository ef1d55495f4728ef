//! Networks of instances' own: what reaches in, what does not get out, and what is left.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use futures_util::poll;
use supervisor::group::{Group, Isolation, Network, SpawnOrder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{END, Node, within};

const PORT: u16 = 8000;
/// Echoes what each connection sends, and connects to where it is told first.
const ECHO: &str = "import os, socket, sys
listener = socket.create_server(('127.0.0.1', 8000))
try:
    home = socket.create_connection(('127.1.0.7', int(sys.argv[1])))
    home.sendall(b'here')
except OSError as error:
    sys.exit(str(error))
while True:
    line, _ = listener.accept()
    line.sendall(line.recv(16))
    line.close()
";

fn inside() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)
}

/// A node with networks of their own; `None`, said, where there are none.
fn node() -> Option<Node> {
    let node = Node::new(Isolation::Auto);
    if !node.containment.has_own_network() {
        let layer = node.containment.layers().iter().find(|layer| layer.id == "L6").unwrap();
        println!("nothing is tested here: {layer}");
        return None;
    }
    Some(node)
}

/// Runs the echo in a network of its own, listening at this port for it; resolves when it said that it is there.
async fn echo(node: &Node, port: u16) -> (Group, Network) {
    let listen = vec![SocketAddrV4::new(Ipv4Addr::new(127, 1, 0, 7), port)];
    let order = SpawnOrder { listen, ..node.order("python3", &["-c", ECHO, &port.to_string()]) };
    let group = node.spawner.spawn(order).await.unwrap();
    let network = group.take_network().unwrap().expect("it has a network of its own");
    assert!(group.take_network().unwrap().is_none(), "once");
    group.go().unwrap();
    let (mut home, _) = network.listeners[0].accept().await.unwrap();
    let mut word = [0; 4];
    home.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"here");
    (group, network)
}

async fn talk(network: &Network) -> bool {
    let mut line = network.sockets.connect(inside()).await.unwrap();
    line.write_all(b"word").await.unwrap();
    let mut said = Vec::new();
    line.read_to_end(&mut said).await.unwrap();
    said == b"word"
}

#[tokio::test]
async fn two_have_the_same_ports_and_each_is_reached_by_its_own_sockets() {
    let Some(node) = node() else { return };
    within(async {
        let (first, one) = echo(&node, 80).await;
        let (second, other) = echo(&node, 80).await;
        assert!(talk(&one).await && talk(&other).await);
        let outside = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let SocketAddr::V4(at) = outside.local_addr().unwrap() else { unreachable!() };
        assert!(one.sockets.connect(at).await.is_err(), "it is outside");
        first.end(END).await.unwrap();
        assert!(one.sockets.connect(inside()).await.is_err(), "nobody makes sockets any more");
        assert!(talk(&other).await, "another's end is no business of this one");
        second.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn whoever_gives_up_a_connection_leaves_nothing_behind_for_the_next() {
    let Some(node) = node() else { return };
    within(async {
        let (group, network) = echo(&node, 80).await;
        for _ in 0..100 {
            let mut given_up = Box::pin(network.sockets.connect(inside()));
            drop(poll!(given_up.as_mut()));
            drop(given_up);
        }
        assert!(talk(&network).await);
        let both = tokio::join!(talk(&network), talk(&network));
        assert_eq!(both, (true, true));
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_that_is_never_let_go_has_its_network_and_is_ended_with_it() {
    let Some(node) = node() else { return };
    within(async {
        let listen = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)];
        let order = SpawnOrder { listen: listen.clone(), ..node.order("sleep", &["1000"]) };
        let group = node.spawner.spawn(order).await.unwrap();
        group.end(END).await.unwrap();
        // One whose network cannot be made is not spawned, and nothing of it is left.
        let twice = vec![listen[0], listen[0]];
        let order = SpawnOrder { listen: twice, ..node.order("sleep", &["1000"]) };
        let why = node.spawner.spawn(order).await.err().unwrap().to_string();
        assert!(why.contains("listening on 127.0.0.1:80"), "{why}");
    })
    .await;
}

#[tokio::test]
async fn without_a_namespace_there_is_no_network_of_its_own() {
    let node = Node::new(Isolation::Subreaper);
    assert!(!node.containment.has_own_network());
    let listen = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)];
    let order = SpawnOrder { listen, ..node.order("true", &[]) };
    let spawned = tokio::time::timeout(Duration::from_secs(30), node.spawner.spawn(order)).await.unwrap();
    assert!(spawned.err().unwrap().to_string().contains("not to be had here"));
}
