-- superseded by the one that knows unwanted words
drop function if exists chat.search_lookup(text[], text[], uuid[]);
