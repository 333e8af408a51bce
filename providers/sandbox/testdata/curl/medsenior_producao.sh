curl -X 'POST' \
'https://integracao.medsenior.com.br/api/v2/beneficiario/{{cpfBeneficiario}}/codigo-confirmacao/enviar' \
-H 'accept: application/json' \
-H 'authorization: Bearer TOKEN_GERADO_NA_AUTENTICACAO' \
-H 'content-type: application/json' \
-d '{
"celularId": "1163cc70-cdf5-4cbb-95d7-9ae7457046fc",
"cpf": "12345678901",
"primeiroAcesso": false
}'
