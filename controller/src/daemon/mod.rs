//! `weftd`: one loop that keeps the speaker, the kernel and the plugin's `node.json` as the plan wants them.

pub mod args;

mod agent;
mod answers;
mod apply;
mod bfd;
mod bmp;
mod cleanup;
mod clear;
mod clock;
mod coalesce;
mod conflist;
mod drain;
mod dynamic;
mod event_query;
mod events;
mod facts;
mod happened;
mod held;
mod install;
mod ipam;
mod kernel_news;
mod lock;
mod managers;
mod metrics;
mod mrt;
mod neighbours;
mod node_file;
mod packet_filter;
mod pods;
mod preflight;
mod problems;
mod ratelimit;
mod remedy;
mod report;
mod run;
mod services;
mod socket;
mod source;
mod sysctl;
mod view;

pub use self::run::main;
