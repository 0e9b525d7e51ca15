-- Undo admissions of messages that were certainly not published.
-- ARGV 3.. ids of messages. Returns how many were in the books. O(messages)
-- @include header index walk admission
for i = 3, #ARGV do discharge(ARGV[i]) end
return close_books()
