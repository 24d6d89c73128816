const express = require('express');
const crypto = require('crypto');

const app = express();
app.use(express.json());

// Webhook secret for signature verification
const WEBHOOK_SECRET = process.env.WEBHOOK_SECRET;

function verifyWebhookSignature(payload, signature, secret) {
  if (!secret) return true; // Skip verification if no secret configured
  
  const expectedSignature = crypto
    .createHmac('sha256', secret)
    .update(payload)
    .digest('hex');
  
  return `sha256=${expectedSignature}` === signature;
}

app.post('/webhook', (req, res) => {
  try {
    // Verify signature if secret is configured
    if (WEBHOOK_SECRET) {
      const signature = req.headers['x-signature-sha256'];
      const payload = JSON.stringify(req.body);
      
      if (!verifyWebhookSignature(payload, signature, WEBHOOK_SECRET)) {
        return res.status(401).json({ error: 'Invalid signature' });
      }
    }

    const { instanceId, status, timestamp, data } = req.body;
    
    console.log(`[${timestamp}] Instance ${instanceId} is now ${status}`);
    
    // Handle different status changes
    switch (status) {
      case 'ready':
        console.log('Instance ready! Connection details:', data.connectionDetails);
        // Notify your application that the instance is ready
        break;
      
      case 'failed':
        console.error('Instance failed:', data);
        // Handle failure - maybe retry or alert
        break;
      
      case 'stopped':
        console.log('Instance stopped');
        // Clean up any resources
        break;
      
      default:
        console.log(`Status update: ${status}`);
    }
    
    res.status(200).json({ received: true });
  } catch (error) {
    console.error('Webhook error:', error);
    res.status(500).json({ error: 'Internal server error' });
  }
});

app.listen(3001, () => {
  console.log('Webhook server listening on port 3001');
});
