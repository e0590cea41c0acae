// express-openid-connect as in its guide; /make/N signs in with line N of a file.
const { auth } = require('express-openid-connect');
const [file, port, rolling] = process.argv.slice(2);
const sessions = require('fs').readFileSync(file, 'utf8').split('\n').map(JSON.parse);
const app = require('express')();
app.use(auth({
  authRequired: false,
  authorizationParams: { response_type: 'code' },
  baseURL: `http://localhost:${port}`,
  clientID: 'kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA',
  clientSecret: 'c'.repeat(48),
  issuerBaseURL: 'https://tenant.eu.auth0.com',
  secret: 'k'.repeat(64),
  session: { rolling: rolling === 'rolling', absoluteDuration: 604800 },
}));
app.get('/make/:n', (req, res) => res.end(Object.assign(req.appSession, sessions[req.params.n]) && ''));
app.get('/api/me', (req, res) => res.json(req.oidc.user));
app.listen(port, '127.0.0.1');
