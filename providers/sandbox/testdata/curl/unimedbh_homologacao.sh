curl --location 'https://apihml.unimedbh.io/security/v1/otp/request' \
--header 'Content-Type: application/json' \
--data-raw '{
  "username": "teste@gmail.com",
  "type": "EMAIL"
}'
