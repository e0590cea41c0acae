// express-openid-connect as its guide has it; /make/N signs in with line N of a file.
const fs = require('fs');
const express = require('express');
const { auth } = require('express-openid-connect');

const [file, port, rolling] = process.argv.slice(2);
const sessions = fs.readFileSync(file, 'utf8').trim().split('\n').map(JSON.parse);
const app = express();
app.use(
  auth({
    authRequired: false,
    baseURL: `http://localhost:${port}`,
    issuerBaseURL: 'https://tenant.eu.auth0.com',
    authorizationParams: { response_mode: 'query', response_type: 'code' },
    clientSecret: 'c'.repeat(48),
    clientID: 'kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA',
    secret: 'k'.repeat(64),
    session: { rolling: rolling === 'rolling', absoluteDuration: 604800 },
  }),
);
app.get('/make/:line', (req, res) => {
  Object.assign(req.appSession, sessions[req.params.line]);
  res.end();
});
app.get('/api/me', (req, res) => res.json(req.oidc.user));
app.listen(port, '127.0.0.1');
