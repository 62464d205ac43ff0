-- What only one process may do at a time. A row lock, because every user can take an advisory lock, and can hold it
-- for as long as their session lives.

create table chat.locks (
  purpose text not null,
  constraint locks_pkey primary key (purpose)
);

insert into chat.locks (purpose) values ('installation'), ('message_partitions'), ('presence');
