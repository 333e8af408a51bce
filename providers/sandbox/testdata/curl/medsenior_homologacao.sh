curl -X 'POST' \
'https://integracao.hml.cloud.medsenior.com.br/api/v2/beneficiario/{{cpfBeneficiario}}/codigo-confirmacao/enviar' \
-H 'accept: application/json' \
-H 'authorization: Bearer TOKEN_GERADO_NA_AUTENTICACAO' \
-H 'content-type: application/json' \
-d '{
"emailId": "bed1066b-d8b5-47bc-a67f-2fd70a3c442d",
"cpf": "12345678901",
"primeiroAcesso": false
}'
