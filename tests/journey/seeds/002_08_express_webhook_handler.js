// Express.js webhook handler
app.post('/webhook', (req, res) => {
  const { instanceId, status, data } = req.body;
  
  console.log(`Instance ${instanceId} is now ${status}`);
  
  if (status === 'ready') {
    console.log('Connection details:', data.connectionDetails);
  }
  
  res.status(200).send('OK');
});
